output "names" {
  description = "Name of each stream, by its short name."
  value       = { for key, stream in aws_kinesis_stream.this : key => stream.name }
}

output "arns" {
  description = "ARN of each stream, by its short name."
  value       = { for key, stream in aws_kinesis_stream.this : key => stream.arn }
}
