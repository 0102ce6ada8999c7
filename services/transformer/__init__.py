"""Stream raw to stream canonical: every observation mapped and labelled."""
