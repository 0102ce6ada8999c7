"""List prices of AWS in us-east-2, in dollars, and of two services one might buy instead. Each with its source and the
date of what was read there; what a region adds, taxes, discounts and free tiers are left out.
"""

from typing import Final

import msgspec

REGION: Final = "us-east-2"
MILLION: Final = 1_000_000.0


class Source(msgspec.Struct, frozen=True):
    """A public page, and the month of what it said when it was read."""

    page: str
    read: str


KINESIS_PAGE: Final = Source(
    "https://aws.amazon.com/kinesis/data-streams/pricing/, the numbers as in Infracost's golden file "
    "kinesis_stream_test (us-east-2)",
    "2025-11",
)
FARGATE_PAGE: Final = Source(
    "https://aws.amazon.com/fargate/pricing/, as told by https://cloudburn.io/blog/aws-fargate-pricing", "2026-04"
)
SPOT_PAGE: Final = Source(
    "https://aws.amazon.com/fargate/pricing/ (Spot moves with supply), as told by https://fortem.dev/fargate-spot/: "
    "50 to 70 % off; the lesser of the two here",
    "2026",
)
DYNAMODB_PAGE: Final = Source(
    "https://aws.amazon.com/dynamodb/pricing/on-demand/, the numbers as in Infracost's golden file dynamodb_table_test",
    "2025-11",
)
S3_PAGE: Final = Source(
    "https://aws.amazon.com/s3/pricing/, the numbers as in Infracost's golden file s3_bucket_test", "2025-11"
)
SECRETS_PAGE: Final = Source("https://aws.amazon.com/secrets-manager/pricing/", "2026")
KMS_PAGE: Final = Source("https://aws.amazon.com/kms/pricing/, the numbers as in Infracost's kms_key_test", "2026-03")
CLOUDWATCH_PAGE: Final = Source(
    "https://aws.amazon.com/cloudwatch/pricing/, the numbers as told by https://signoz.io/guides/cloudwatch-pricing",
    "2026-02",
)
CLOUDTRAIL_PAGE: Final = Source("https://aws.amazon.com/cloudtrail/pricing/", "2025-11")
GLUE_PAGE: Final = Source("https://aws.amazon.com/glue/pricing/ (the first million requests are free)", "2025-11")
VPC_PAGE: Final = Source(
    "https://aws.amazon.com/vpc/pricing/, as told by https://www.zacfukuda.com/blog/aws-nat-gateway-vs-vpc-endpoint "
    "and https://cloudburn.io/blog/aws-nat-gateway-pricing",
    "2026-06",
)
AIRBYTE_PAGE: Final = Source(
    "https://docs.airbyte.com/platform/next/cloud/managing-airbyte-cloud/manage-credits", "2026"
)
FIVETRAN_PAGE: Final = Source("https://fivetran.com/docs/usage-based-pricing", "2026")


class Price(msgspec.Struct, frozen=True):
    """`usd` for so many (`per`) of `unit`."""

    usd: float
    unit: str
    source: Source
    per: float = 1.0

    def of(self, quantity: float) -> float:
        """Dollars for `quantity` of `unit`."""
        return quantity * self.usd / self.per


# -- streams. On demand a record counts in whole KB; a put payload unit is 25 KB of one record
STREAM_HOUR: Final = Price(0.04, "stream-hours", KINESIS_PAGE)
STREAM_IN: Final = Price(0.08, "GB", KINESIS_PAGE)
STREAM_OUT: Final = Price(0.04, "GB", KINESIS_PAGE)
STREAM_KEPT: Final = Price(0.10, "GB-months", KINESIS_PAGE)  # from the second to the seventh day
STREAM_PUSHED: Final = Price(0.05, "GB", KINESIS_PAGE)  # enhanced fan-out, on demand
SHARD_HOUR: Final = Price(0.015, "shard-hours", KINESIS_PAGE)
SHARD_KEPT: Final = Price(0.02, "shard-hours", KINESIS_PAGE)
SHARD_PUT: Final = Price(0.014, "payload units", KINESIS_PAGE, MILLION)
SHARD_PUSHED: Final = Price(0.013, "GB", KINESIS_PAGE)
SHARD_PUSH_HOUR: Final = Price(0.015, "consumer-shard-hours", KINESIS_PAGE)

# -- tasks, Linux on ARM
VCPU_HOUR: Final = Price(0.03238, "vCPU-hours", FARGATE_PAGE)
MEMORY_HOUR: Final = Price(0.00356, "GB-hours", FARGATE_PAGE)
DISK_HOUR: Final = Price(0.000111, "GB-hours beyond 20 GB a task", FARGATE_PAGE)
SPOT_SHARE: Final = 0.5  # of the prices above: SPOT_PAGE

# -- tables. A write unit is a KB of a row, a read unit 4 KB of rows, read consistently
WRITE_UNITS: Final = Price(0.625, "write units", DYNAMODB_PAGE, MILLION)
READ_UNITS: Final = Price(0.125, "read units", DYNAMODB_PAGE, MILLION)

# -- lake
PUT_REQUESTS: Final = Price(0.005, "PUT, POST and LIST requests", S3_PAGE, 1_000)
GET_REQUESTS: Final = Price(0.0004, "GET and HEAD requests", S3_PAGE, 1_000)
S3_STORAGE: Final = Price(0.023, "GB-months", S3_PAGE)
CATALOG_REQUESTS: Final = Price(1.0, "requests", GLUE_PAGE, MILLION)

# -- secrets and keys
SECRETS: Final = Price(0.40, "secrets", SECRETS_PAGE)
SECRET_CALLS: Final = Price(0.05, "calls", SECRETS_PAGE, 10_000)
KEYS: Final = Price(1.0, "keys", KMS_PAGE)
KEY_CALLS: Final = Price(0.03, "calls", KMS_PAGE, 10_000)

# -- watching
METRICS: Final = Price(0.30, "metrics", CLOUDWATCH_PAGE)
ALARMS: Final = Price(0.10, "alarms", CLOUDWATCH_PAGE)
COMPOSITE_ALARMS: Final = Price(0.50, "composite alarms", CLOUDWATCH_PAGE)
DASHBOARDS: Final = Price(3.0, "dashboards", CLOUDWATCH_PAGE)
LOGS_IN: Final = Price(0.50, "GB", CLOUDWATCH_PAGE)
DATA_EVENTS: Final = Price(0.10, "data events", CLOUDTRAIL_PAGE, 100_000)

# -- network
NAT_HOUR: Final = Price(0.045, "gateway-hours", VPC_PAGE)
ADDRESS_HOUR: Final = Price(0.005, "address-hours", VPC_PAGE)
NAT_DATA: Final = Price(0.045, "GB", VPC_PAGE)
ENDPOINT_HOUR: Final = Price(0.01, "endpoint-hours", VPC_PAGE)
ENDPOINT_DATA: Final = Price(0.01, "GB", VPC_PAGE)

# -- bought instead
AIRBYTE_ROWS: Final = Price(15.0, "rows of API sources", AIRBYTE_PAGE, MILLION)
AIRBYTE_BASE: Final = Price(10.0, "month, 4 credits of 2.50 dollars included", AIRBYTE_PAGE)
