# The state bucket that bootstrap/ made in this account; its output `backend` is this file.
bucket     = "avesa-terraform-state-444455556666"
key        = "prod/platform.tfstate"
region     = "us-east-2"
kms_key_id = "arn:aws:kms:us-east-2:444455556666:alias/avesa-terraform-state"
