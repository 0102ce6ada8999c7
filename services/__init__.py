"""AVESA: vendor APIs to a full-history lake on S3, one package for every service."""
