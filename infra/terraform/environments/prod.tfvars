# Production: an account of its own, nothing that a single zone's end would stop, nothing that can be deleted by mistake.
environment = "prod"
account_id  = "444455556666" # yours: production, and nothing else
region      = "us-east-2"
protected   = true

permissions_boundary_arn = "arn:aws:iam::444455556666:policy/avesa-ci/avesa-boundary-prod"
secret_operator_arns     = ["arn:aws:iam::444455556666:role/aws-reserved/sso.amazonaws.com/*AWSReservedSSO_AvesaOperator_*"]

network = {
  cidr               = "10.30.0.0/16"
  availability_zones = ["us-east-2a", "us-east-2b", "us-east-2c"]
  nat                = "per_az"
}

# Two of each on demand, in two zones; what scaling adds may be Spot.
capacity = { on_demand_base = 2, on_demand_weight = 1, spot_weight = 1 }

services = {
  extractor   = { cpu = 1024, memory = 2048, min = 2, max = 8 }
  transformer = { cpu = 1024, memory = 2048, min = 2, max = 4 }
  compactor   = { cpu = 2048, memory = 8192, disk_gib = 50, min = 2, max = 4 }
}

# One vendor's fleet reads only its secrets, one table's fleet fails alone; both are data, as many as wanted:
# extractor_groups   = { psa = { services = ["autotask_psa", "connectwise", "halopsa"], max = 4 } }
# transformer_groups = { tickets = { tables = ["tickets"], fan_out = true } }

alert_emails         = ["avesa-oncall@example.com"] # yours
budget_usd_per_month = 2000
log_retention_days   = 400

lake = { noncurrent_days = 30 }

# After dev has been applied: sink_arn = its output `sink_arn`.
monitoring = { mode = "source", account_id = "111122223333" }
