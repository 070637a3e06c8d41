# Who may do what, as text: no provider is needed, so that this part is rendered and tested without AWS.

variable "bucket" {
  description = "The bucket of logs and of what is made from them."
  type        = string
}

variable "raw" {
  description = "The prefix of logs, without slashes around it."
  type        = string
  default     = "raw"
  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9/_.-]*[A-Za-z0-9]$", var.raw))
    error_message = "raw: expected a prefix without slashes around it and without wildcards."
  }
}

variable "curated" {
  description = "The prefix of what jobs make of logs, the same way."
  type        = string
  default     = "curated"
  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9/_.-]*[A-Za-z0-9]$", var.curated))
    error_message = "curated: expected a prefix without slashes around it and without wildcards."
  }
  validation {
    condition     = !startswith("${var.curated}/", "${var.raw}/") && !startswith("${var.raw}/", "${var.curated}/")
    error_message = "curated: expected a prefix that is not within raw, nor raw within it: who reads one would read both."
  }
}

variable "partition" {
  description = "aws, aws-cn or aws-us-gov."
  type        = string
  default     = "aws"
}

variable "namespace" {
  description = "The namespace that the chart is installed in."
  type        = string
}

variable "service_accounts" {
  description = "The chart's serviceAccounts.*.name, by kind of work."
  type        = map(string)
  default = {
    server    = "auction-server"
    jobs      = "auction-jobs"
    notebooks = "auction-notebooks"
  }
  validation {
    condition     = toset(keys(var.service_accounts)) == toset(["server", "jobs", "notebooks"])
    error_message = "service_accounts: expected a name each for server, jobs and notebooks."
  }
}

variable "oidc_provider_arn" {
  description = "For IRSA: the cluster's IAM OIDC provider. Its issuer is the part behind oidc-provider/."
  type        = string
  default     = ""
}

variable "cluster" {
  description = "For Pod Identity: the cluster's name."
  type        = string
  default     = ""
}

locals {
  issuer = element(split("oidc-provider/", var.oidc_provider_arn), 1)
}

output "service_accounts" {
  description = "The names, by kind of work."
  value       = var.service_accounts
}

output "policies" {
  description = "What each may do."
  value = { for work, name in var.service_accounts : work => templatefile("${path.module}/${work}.json", {
    partition = var.partition
    bucket    = var.bucket
    raw       = var.raw
    curated   = var.curated
  }) }
}

output "irsa_trusts" {
  description = "Who may be each, by IRSA: one service account of one namespace of one cluster."
  value = { for work, name in var.service_accounts : work => jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRoleWithWebIdentity"
      Principal = { Federated = var.oidc_provider_arn }
      Condition = { StringEquals = {
        "${local.issuer}:aud" = "sts.amazonaws.com"
        "${local.issuer}:sub" = "system:serviceaccount:${var.namespace}:${name}"
      } }
    }]
  }) }
}

output "pod_identity_trusts" {
  description = "The same by Pod Identity. The session's tags are set by EKS and not by the pod."
  value = { for work, name in var.service_accounts : work => jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Principal = { Service = "pods.eks.amazonaws.com" }
      Condition = { StringEquals = {
        "aws:RequestTag/eks-cluster-name"           = var.cluster
        "aws:RequestTag/kubernetes-namespace"       = var.namespace
        "aws:RequestTag/kubernetes-service-account" = name
      } }
    }]
  }) }
}
