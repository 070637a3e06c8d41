# A role for each service account, by IRSA: the service account names its role, the role trusts the service account.

terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.40"
    }
  }
}

variable "bucket" {
  description = "The bucket of logs and of what is made from them."
  type        = string
}

variable "namespace" {
  description = "The namespace that the chart is installed in."
  type        = string
}

variable "cluster" {
  description = "The cluster's name, which the roles are named after."
  type        = string
}

variable "oidc_provider_arn" {
  description = "The cluster's IAM OIDC provider; each cluster has its own."
  type        = string
}

data "aws_partition" "here" {}

module "policies" {
  source            = "../policies"
  bucket            = var.bucket
  namespace         = var.namespace
  partition         = data.aws_partition.here.partition
  oidc_provider_arn = var.oidc_provider_arn
}

resource "aws_iam_role" "work" {
  for_each           = module.policies.service_accounts
  name               = "${var.cluster}-${var.namespace}-${each.value}"
  assume_role_policy = module.policies.irsa_trusts[each.key]
}

resource "aws_iam_role_policy" "work" {
  for_each = module.policies.service_accounts
  name     = each.key
  role     = aws_iam_role.work[each.key].name
  policy   = module.policies.policies[each.key]
}

output "role_arns" {
  description = "For the chart's serviceAccounts.*.roleArn, by kind of work."
  value       = { for work, role in aws_iam_role.work : work => role.arn }
}
