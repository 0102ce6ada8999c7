"""The real extractor against hostile vendors, over HTTP, by seed.

    world      one vendor, its server, the AWS twins in memory, and extractor processes that can be killed
    seeds      one seed: which endpoints, which hostility, when; then a quiet end
    oracle     what the raw stream must hold, from what the vendor holds and served
    reference  a vendor that never was, with one endpoint per way of reading
    described  answers and requests held against a vendor's published description

python -m tests.dialects --seeds 0-149
"""
