# A role for each service account, by EKS Pod Identity: EKS is told which service account has which role.

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
  description = "The cluster's name. Its nodes need the eks-pod-identity-agent add-on."
  type        = string
}

data "aws_partition" "here" {}

module "policies" {
  source    = "../policies"
  bucket    = var.bucket
  namespace = var.namespace
  partition = data.aws_partition.here.partition
  cluster   = var.cluster
}

resource "aws_iam_role" "work" {
  for_each           = module.policies.service_accounts
  name               = "${var.cluster}-${var.namespace}-${each.value}"
  assume_role_policy = module.policies.pod_identity_trusts[each.key]
}

resource "aws_iam_role_policy" "work" {
  for_each = module.policies.service_accounts
  name     = each.key
  role     = aws_iam_role.work[each.key].name
  policy   = module.policies.policies[each.key]
}

resource "aws_eks_pod_identity_association" "work" {
  for_each        = module.policies.service_accounts
  cluster_name    = var.cluster
  namespace       = var.namespace
  service_account = each.value
  role_arn        = aws_iam_role.work[each.key].arn
}
