# On a local emulator (ministack), by `make infra-local`: the same root, without what the emulator lacks.
# emulator_endpoint is given on the command line, because its port is free to choose.
environment = "local"
account_id  = "000000000000"
protected   = false

# Nothing runs in its ECS: services are records there, and the image is never pulled.
image = "avesa@sha256:0000000000000000000000000000000000000000000000000000000000000000"

network = {
  cidr               = "10.40.0.0/16"
  availability_zones = ["us-east-2a", "us-east-2b"]
  nat                = "none"
  flow_logs          = false
}

streams = {
  raw       = { mode = "PROVISIONED", shards = 2 }
  canonical = { mode = "PROVISIONED", shards = 2 }
}

services = {
  extractor   = { max = 2 }
  transformer = { max = 2 }
  compactor   = { max = 2 }
}

log_retention_days = 7

features = {
  autoscaling       = false
  saved_queries     = false
  wait_for_services = false
}
