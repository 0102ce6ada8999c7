"""Vendor APIs to stream raw: every record as the vendor returned it."""
