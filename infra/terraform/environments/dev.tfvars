# Development: cheap, may be deleted, and the account from which production is watched.
environment = "dev"
account_id  = "111122223333" # yours: development and staging
region      = "us-east-2"
protected   = false

permissions_boundary_arn = "arn:aws:iam::111122223333:policy/avesa-ci/avesa-boundary-dev"
secret_operator_arns     = ["arn:aws:iam::111122223333:role/aws-reserved/sso.amazonaws.com/*AWSReservedSSO_AvesaOperator_*"]

network = {
  cidr               = "10.20.0.0/16"
  availability_zones = ["us-east-2a", "us-east-2b"]
  nat                = "single"
}

# All on Spot: what is reclaimed drains within its two minutes, and another goes on where it was.
capacity = { on_demand_base = 0, on_demand_weight = 0, spot_weight = 1 }

services = {
  extractor   = { cpu = 256, memory = 1024, max = 2 }
  transformer = { cpu = 256, memory = 1024, max = 2 }
  compactor   = { cpu = 512, memory = 2048, disk_gib = 20, max = 2 }
}

alert_emails         = ["avesa-dev@example.com"] # yours
budget_usd_per_month = 300
log_retention_days   = 30

lake = { noncurrent_days = 7, system_noncurrent_days = 1 }

monitoring = {
  mode               = "monitoring"
  account_id         = "111122223333"
  source_account_ids = ["444455556666"]
  alert_emails       = ["avesa-alarms@example.com"] # yours: the alarms of dev, staging and prod in one place
  source_services = {
    avesa-extractor-prod   = { service = "extractor", group = "extractor", log_group_name = "/avesa/prod/extractor" }
    avesa-transformer-prod = { service = "transformer", group = "transformer", log_group_name = "/avesa/prod/transformer" }
    avesa-compactor-prod   = { service = "compactor", group = "compactor", log_group_name = "/avesa/prod/compactor" }
  }
}

features = { container_insights = false, cloudtrail = false }
