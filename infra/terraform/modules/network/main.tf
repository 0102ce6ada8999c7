locals {
  zones   = { for index, zone in var.availability_zones : zone => index }
  nat     = { none = [], single = slice(var.availability_zones, 0, 1), per_az = var.availability_zones }[var.nat]
  public  = var.nat == "none" ? {} : local.zones # public subnets hold NAT gateways and nothing else
  nat_for = { for zone in var.availability_zones : zone => contains(local.nat, zone) ? zone : one(slice(local.nat, 0, 1)) if var.nat != "none" }
  name    = "avesa-${var.environment}"
}

resource "aws_vpc" "this" {
  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true # private names of interface endpoints need it

  tags = { Name = local.name }
}

# The default group is what a resource gets that names none: empty, so that such a one is cut off, not open.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${local.name}-default-unused" }
}

# -- subnets and the way out -------------------------------------------------------------------------------------------
resource "aws_subnet" "private" {
  for_each = local.zones

  vpc_id                  = aws_vpc.this.id
  availability_zone       = each.key
  cidr_block              = cidrsubnet(var.cidr, 4, each.value)
  map_public_ip_on_launch = false

  tags = { Name = "${local.name}-private-${each.key}" }
}

resource "aws_subnet" "public" {
  for_each = local.public

  vpc_id                  = aws_vpc.this.id
  availability_zone       = each.key
  cidr_block              = cidrsubnet(var.cidr, 4, each.value + 8)
  map_public_ip_on_launch = false

  tags = { Name = "${local.name}-public-${each.key}" }
}

resource "aws_internet_gateway" "this" {
  count = var.nat == "none" ? 0 : 1

  vpc_id = aws_vpc.this.id

  tags = { Name = local.name }
}

resource "aws_eip" "nat" {
  for_each = toset(local.nat)

  domain = "vpc"

  tags = { Name = "${local.name}-nat-${each.key}" }

  depends_on = [aws_internet_gateway.this]
}

resource "aws_nat_gateway" "this" {
  for_each = toset(local.nat)

  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = aws_subnet.public[each.key].id

  tags = { Name = "${local.name}-${each.key}" }

  depends_on = [aws_internet_gateway.this]
}

resource "aws_route_table" "public" {
  count = var.nat == "none" ? 0 : 1

  vpc_id = aws_vpc.this.id

  tags = { Name = "${local.name}-public" }
}

resource "aws_route" "internet" {
  count = var.nat == "none" ? 0 : 1

  route_table_id         = aws_route_table.public[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this[0].id
}

resource "aws_route_table_association" "public" {
  for_each = aws_subnet.public

  subnet_id      = each.value.id
  route_table_id = aws_route_table.public[0].id
}

resource "aws_route_table" "private" {
  for_each = local.zones

  vpc_id = aws_vpc.this.id

  tags = { Name = "${local.name}-private-${each.key}" }
}

resource "aws_route" "nat" {
  for_each = local.nat_for

  route_table_id         = aws_route_table.private[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[each.value].id
}

resource "aws_route_table_association" "private" {
  for_each = aws_subnet.private

  subnet_id      = each.value.id
  route_table_id = aws_route_table.private[each.key].id
}

# -- AWS without NAT ---------------------------------------------------------------------------------------------------
# The gateway endpoints cost nothing and carry most of the bytes. Through them only this account's buckets and tables
# are reached, so that a stolen task cannot carry data out to a bucket of its own; ECR keeps image layers in AWS's.
locals {
  own_account = {
    Sid       = "OwnAccount"
    Effect    = "Allow"
    Principal = "*"
    Action    = "*"
    Resource  = "*"
    Condition = { StringEquals = { "aws:ResourceAccount" = var.account_id } }
  }
  gateway_statements = {
    dynamodb = [local.own_account]
    s3 = [local.own_account, {
      Sid       = "ImageLayers"
      Effect    = "Allow"
      Principal = "*"
      Action    = "s3:GetObject"
      Resource  = "arn:${var.partition}:s3:::prod-${var.region}-starport-layer-bucket/*"
    }]
  }
}

resource "aws_vpc_endpoint" "gateway" {
  for_each = { for service, statements in local.gateway_statements : service => jsonencode({ Version = "2012-10-17", Statement = statements }) }

  vpc_id            = aws_vpc.this.id
  vpc_endpoint_type = "Gateway"
  service_name      = "com.amazonaws.${var.region}.${each.key}"
  route_table_ids   = [for table in values(aws_route_table.private) : table.id]
  policy            = each.value

  tags = { Name = "${local.name}-${each.key}" }
}

resource "aws_vpc_endpoint" "interface" {
  for_each = toset(var.interface_endpoints)

  vpc_id              = aws_vpc.this.id
  vpc_endpoint_type   = "Interface"
  service_name        = "com.amazonaws.${var.region}.${each.key}"
  private_dns_enabled = true
  subnet_ids          = [for subnet in values(aws_subnet.private) : subnet.id]
  security_group_ids  = [aws_security_group.endpoints[0].id]
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OwnAccount"
      Effect    = "Allow"
      Principal = "*"
      Action    = "*"
      Resource  = "*"
      Condition = { StringEquals = { "aws:PrincipalAccount" = var.account_id } }
    }]
  })

  tags = { Name = "${local.name}-${each.key}" }
}

# -- who may speak to whom ---------------------------------------------------------------------------------------------
resource "aws_security_group" "service" {
  #checkov:skip=CKV2_AWS_5:attached to the services, which another module makes
  name        = "${local.name}-service"
  description = "Services: nothing in, HTTPS out (vendors and AWS)."
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${local.name}-service" }
}

# Names are resolved by the VPC's own resolver, which no security group filters: nothing but 443 is needed.
resource "aws_vpc_security_group_egress_rule" "service_https" {
  security_group_id = aws_security_group.service.id
  description       = "HTTPS to vendors and AWS"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_security_group" "endpoints" {
  count = length(var.interface_endpoints) > 0 ? 1 : 0

  name        = "${local.name}-endpoints"
  description = "Interface endpoints: HTTPS in from the services."
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${local.name}-endpoints" }
}

resource "aws_vpc_security_group_ingress_rule" "endpoints_https" {
  count = length(var.interface_endpoints) > 0 ? 1 : 0

  security_group_id            = aws_security_group.endpoints[0].id
  description                  = "HTTPS from the services"
  referenced_security_group_id = aws_security_group.service.id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

# -- flow logs ---------------------------------------------------------------------------------------------------------
resource "aws_cloudwatch_log_group" "flow" {
  count = var.flow_logs ? 1 : 0

  name              = "/avesa/${var.environment}/network"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  skip_destroy      = var.keep_logs
}

resource "aws_iam_role" "flow" {
  count = var.flow_logs ? 1 : 0

  name                 = "avesa-flow-logs-${var.environment}"
  path                 = "/avesa/${var.environment}/"
  description          = "Writes the VPC's flow logs."
  permissions_boundary = var.permissions_boundary_arn
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "vpc-flow-logs.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = {
        ArnLike      = { "aws:SourceArn" = "arn:${var.partition}:ec2:${var.region}:${var.account_id}:vpc-flow-log/*" }
        StringEquals = { "aws:SourceAccount" = var.account_id }
      }
    }]
  })
}

resource "aws_iam_role_policy" "flow" {
  count = var.flow_logs ? 1 : 0

  name = "write"
  role = aws_iam_role.flow[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "Write"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
        Resource = "${aws_cloudwatch_log_group.flow[0].arn}:*"
      },
      {
        # Among the least that flow logs ask for, and asked for without a name: VPC user guide, "IAM role for publishing
        # flow logs to CloudWatch Logs". Without it a flow log is there, and says "Access error". Names only.
        Sid      = "Find"
        Effect   = "Allow"
        Action   = "logs:DescribeLogGroups"
        Resource = "*"
      },
    ]
  })
}

resource "aws_flow_log" "this" {
  count = var.flow_logs ? 1 : 0

  vpc_id               = aws_vpc.this.id
  traffic_type         = "ALL"
  log_destination_type = "cloud-watch-logs"
  log_destination      = aws_cloudwatch_log_group.flow[0].arn
  iam_role_arn         = aws_iam_role.flow[0].arn

  tags = { Name = local.name }
}
