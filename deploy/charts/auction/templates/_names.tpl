{{/* Names and labels. The labels that select are few and never change: a selector of a Deployment cannot be changed. */}}

{{- define "auction.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* 40 characters, so that the longest suffix and the hashes of pods still fit a label's 63. */}}
{{- define "auction.fullname" -}}
{{- $name := include "auction.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What stable and canary pods share, and nothing else has. */}}
{{- define "auction.shared" -}}
app.kubernetes.io/name: {{ include "auction.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: server
{{- end -}}

{{- define "auction.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "auction.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* repository@digest, or repository:tag. Takes root and image. */}}
{{- define "auction.image" -}}
{{- $repository := .root.Values.image.repository -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "auction.secret" -}}
{{- if .Values.secrets.existingSecret -}}
{{- .Values.secrets.existingSecret -}}
{{- else if .Values.secrets.externalSecret.enabled -}}
{{- include "auction.fullname" . -}}
{{- end -}}
{{- end -}}

{{/* The Prometheus matchers of this release's series. */}}
{{- define "auction.selector" -}}
{{- .Values.monitoring.rules.selector | default (printf `namespace="%s",release="%s"` .Release.Namespace .Release.Name) -}}
{{- end -}}
