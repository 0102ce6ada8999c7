output "vpc_id" {
  description = "The VPC."
  value       = aws_vpc.this.id
}

output "private_subnet_ids" {
  description = "One private subnet per zone, in the order of the zones: where the services run."
  value       = [for zone in var.availability_zones : aws_subnet.private[zone].id]

  # A task started before its subnet has a way out fails to pull its image.
  depends_on = [aws_route.nat, aws_route_table_association.private]
}

output "service_security_group_id" {
  description = "Security group of the services: nothing in, 443 out."
  value       = aws_security_group.service.id
}

output "nat_addresses" {
  description = "Public addresses the services call vendors from, for a vendor's allow list."
  value       = [for address in values(aws_eip.nat) : address.public_ip]
}

output "gateway_endpoint_ids" {
  description = "Gateway endpoints by service: s3, dynamodb."
  value       = { for name, endpoint in aws_vpc_endpoint.gateway : name => endpoint.id }
}
