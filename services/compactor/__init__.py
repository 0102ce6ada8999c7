"""Stream canonical to the lake on S3: Parquet files and Iceberg tables."""
