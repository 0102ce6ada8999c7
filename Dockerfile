# syntax=docker/dockerfile:1
# One image for every service: the command picks it, e.g. `docker run avesa extractor --services connectwise`.
FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/avesa
WORKDIR /src
COPY requirements-build.lock requirements-runtime.lock ./
# Tools that build go into the stage's own Python, the runtime into /opt/avesa; every file is hash-checked.
RUN pip install --require-hashes -r requirements-build.lock \
    && pip --python /opt/avesa/bin/python uninstall --yes setuptools \
    && pip wheel --require-hashes --no-build-isolation --no-deps --wheel-dir /wheels -r requirements-runtime.lock \
    && pip --python /opt/avesa/bin/python install --no-index --no-deps /wheels/*.whl
COPY pyproject.toml ./
COPY services services
COPY mappings mappings
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
    && pip --python /opt/avesa/bin/python install --no-index --no-deps /wheel/*.whl \
    && pip --python /opt/avesa/bin/python check

FROM python:3.11-slim
# A number, so that `runAsNonRoot` can tell; the root file system may be read-only, state goes to /var/lib/avesa.
RUN useradd --uid 10001 --user-group --no-log-init --no-create-home --home-dir /var/lib/avesa avesa \
    && install -d -o avesa -g avesa -m 0750 /var/lib/avesa
COPY --from=build /opt/avesa /opt/avesa
ENV PATH=/opt/avesa/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# What ECS mounts where the root file system is read-only. Named here it keeps its owner and mode, else Fargate makes it
# root's (Amazon ECS developer guide, bind mounts); the same two stand in infra/terraform/modules/service.
VOLUME ["/var/lib/avesa", "/tmp"]
USER 10001:10001
WORKDIR /var/lib/avesa
ENTRYPOINT ["avesa"]
CMD ["--help"]
