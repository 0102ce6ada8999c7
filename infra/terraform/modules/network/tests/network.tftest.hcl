mock_provider "aws" {
  override_during = plan

  mock_resource "aws_security_group" {
    defaults = { id = "sg-1" }
  }
}

variables {
  environment        = "prod"
  account_id         = "222222222222"
  region             = "us-east-2"
  kms_key_arn        = "arn:aws:kms:us-east-2:222222222222:key/logs"
  cidr               = "10.20.0.0/16"
  availability_zones = ["us-east-2a", "us-east-2b", "us-east-2c"]
  nat                = "per_az"
}

run "services_live_in_private_subnets_and_nothing_gets_a_public_address" {
  command = plan

  assert {
    condition = { for zone, subnet in aws_subnet.private : zone => subnet.cidr_block } == {
      us-east-2a = "10.20.0.0/20", us-east-2b = "10.20.16.0/20", us-east-2c = "10.20.32.0/20"
    }
    error_message = "A sixteenth each."
  }

  assert {
    condition     = alltrue([for subnet in concat(values(aws_subnet.private), values(aws_subnet.public)) : !subnet.map_public_ip_on_launch])
    error_message = "Not even in the public subnets."
  }

  assert {
    condition     = length(setintersection(values(aws_subnet.private)[*].cidr_block, values(aws_subnet.public)[*].cidr_block)) == 0
    error_message = "Private and public addresses do not meet."
  }
}

run "nothing_comes_in_and_only_443_goes_out" {
  command = plan

  assert {
    condition     = aws_vpc_security_group_egress_rule.service_https.from_port == 443 && aws_vpc_security_group_egress_rule.service_https.to_port == 443 && aws_vpc_security_group_egress_rule.service_https.ip_protocol == "tcp"
    error_message = "HTTPS only."
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.endpoints_https) == 0 && length(aws_security_group.endpoints) == 0
    error_message = "Without interface endpoints there is no way in at all."
  }
}

run "the_free_endpoints_lead_to_our_own_account_only" {
  command = plan

  assert {
    condition     = toset(keys(aws_vpc_endpoint.gateway)) == toset(["s3", "dynamodb"])
    error_message = "Always both."
  }

  assert {
    condition = alltrue(flatten([
      for endpoint in values(aws_vpc_endpoint.gateway) : [
        for statement in jsondecode(endpoint.policy).Statement :
        statement.Sid == "OwnAccount" ? statement.Condition.StringEquals["aws:ResourceAccount"] == "222222222222" : (statement.Action == "s3:GetObject" && statement.Resource == "arn:aws:s3:::prod-us-east-2-starport-layer-bucket/*")
      ]
    ]))
    error_message = "But for reading image layers, which ECR keeps in a bucket of AWS."
  }
}

run "each_zone_of_production_has_its_own_way_out" {
  command = plan

  assert {
    condition     = toset(keys(aws_nat_gateway.this)) == toset(var.availability_zones) && local.nat_for == { us-east-2a = "us-east-2a", us-east-2b = "us-east-2b", us-east-2c = "us-east-2c" }
    error_message = "One zone's end is not another's."
  }
}

run "one_gateway_serves_all_zones_where_that_is_enough" {
  command = plan

  variables {
    nat = "single"
  }

  assert {
    condition     = join(",", keys(aws_nat_gateway.this)) == "us-east-2a" && join(",", distinct(values(local.nat_for))) == "us-east-2a" && length(aws_route.nat) == 3
    error_message = "All private subnets go through the first zone."
  }
}

run "without_nat_there_is_no_internet" {
  command = plan

  variables {
    nat                 = "none"
    interface_endpoints = ["kinesis-streams"]
  }

  assert {
    condition     = length(aws_nat_gateway.this) + length(aws_internet_gateway.this) + length(aws_subnet.public) + length(aws_route.nat) + length(aws_eip.nat) == 0
    error_message = "No gateway, no public subnet, no route."
  }

  assert {
    condition     = aws_vpc_endpoint.interface["kinesis-streams"].service_name == "com.amazonaws.us-east-2.kinesis-streams" && aws_vpc_security_group_ingress_rule.endpoints_https[0].from_port == 443
    error_message = "AWS is reached by endpoints, on 443."
  }
}

run "connections_are_recorded_encrypted_for_a_year" {
  command = plan

  assert {
    condition     = aws_cloudwatch_log_group.flow[0].name == "/avesa/prod/network" && aws_cloudwatch_log_group.flow[0].kms_key_id == var.kms_key_arn && aws_cloudwatch_log_group.flow[0].retention_in_days == 365
    error_message = "With the logs key."
  }

  assert {
    condition     = aws_flow_log.this[0].traffic_type == "ALL" && aws_iam_role.flow[0].path == "/avesa/prod/"
    error_message = "Refused and accepted; the role lies where CI may make roles."
  }
}

run "one_zone_is_too_few" {
  command = plan

  variables {
    availability_zones = ["us-east-2a"]
  }

  expect_failures = [var.availability_zones]
}
