# Where the state lies is data: terraform init -backend-config=../environments/{env}.backend.hcl
terraform {
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}
