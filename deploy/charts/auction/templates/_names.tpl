{{/* Names and labels. The labels that select are few and never change: a selector of a Deployment cannot be changed. */}}

{{- define "auction.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* 39 characters, so that `-canary` and the hashes of pods still fit the 63 of a host name. */}}
{{- define "auction.fullname" -}}
{{- $name := include "auction.name" . -}}
{{- $whole := printf "%s-%s" .Release.Name $name -}}
{{- if .Values.fullnameOverride -}}
{{- $whole = .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- $whole = .Release.Name -}}
{{- end -}}
{{- $whole = $whole | trunc 39 | trimSuffix "-" -}}
{{- /* A Service is called by one label of DNS, and Kubernetes before 1.36 wants a letter first. */ -}}
{{- if not (regexMatch `^[a-z]([-a-z0-9]*[a-z0-9])?$` $whole) -}}
{{- fail (printf "fullnameOverride: expected a name of lower-case letters, digits and dashes that begins with a letter, was %s, from the release's name where none is given" $whole) -}}
{{- end -}}
{{- $whole -}}
{{- end -}}

{{/* What stable and canary pods share, and nothing else has. */}}
{{- define "auction.shared" -}}
app.kubernetes.io/name: {{ include "auction.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: server
{{- end -}}

{{- define "auction.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "auction.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* The labels of an object and more of somebody's own. Takes root and more. */}}
{{- define "auction.labelled" -}}
{{- mergeOverwrite (include "auction.labels" .root | fromYaml) (.more | default dict) | toYaml -}}
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
