# Staging: in development's account, as large as production where that tells something, and deleted on demand.
environment = "staging"
account_id  = "111122223333" # yours: development and staging
region      = "us-east-2"
protected   = false

permissions_boundary_arn = "arn:aws:iam::111122223333:policy/avesa-ci/avesa-boundary-staging"
secret_operator_arns     = ["arn:aws:iam::111122223333:role/aws-reserved/sso.amazonaws.com/*AWSReservedSSO_AvesaOperator_*"]

network = {
  cidr               = "10.21.0.0/16"
  availability_zones = ["us-east-2a", "us-east-2b"]
  nat                = "single"
}

# Half of what is beyond the first task on Spot: drains are exercised before production sees them.
capacity = { on_demand_base = 1, on_demand_weight = 1, spot_weight = 1 }

alert_emails         = ["avesa-staging@example.com"] # yours
budget_usd_per_month = 500
log_retention_days   = 90

# The sink and the central topic are dev's, in the same account: no link is needed.
monitoring = { mode = "none", account_id = "111122223333" }
