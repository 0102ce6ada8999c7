# The state bucket that bootstrap/ made in this account; its output `backend` is this file.
bucket     = "avesa-terraform-state-111122223333"
key        = "dev/platform.tfstate"
region     = "us-east-2"
kms_key_id = "arn:aws:kms:us-east-2:111122223333:alias/avesa-terraform-state"
