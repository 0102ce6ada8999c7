# tflint --config infra/terraform/.tflint.hcl --recursive --chdir infra/terraform
# Only what comes with tflint: the ruleset for AWS is a download of its own, and the provider checks as much at the plan.
plugin "terraform" {
  enabled = true
  preset  = "all"
}

# The files of a root are named by what they hold: permissions, scaling, checks.
rule "terraform_standard_module_structure" {
  enabled = false
}
