{{/* What values.schema.json cannot say: values that are fine one by one and would not work together. What concerns one kind of
     object alone is refused beside it. Each refusal names the value, what was expected and what was there. */}}

{{/* Fails, or renders nothing. Takes the root. */}}
{{- define "auction.checked" -}}
{{- $rollout := .Values.rollout -}}
{{- if and (has (toString $rollout.maxUnavailable) (list "0" "0%")) (has (toString $rollout.maxSurge) (list "0" "0%")) -}}
{{- fail "rollout.maxSurge: expected more than 0 with maxUnavailable 0, was 0: no pod could ever be replaced" -}}
{{- end -}}
{{- if le (int $rollout.progressDeadlineSeconds) (int $rollout.minReadySeconds) -}}
{{- fail (printf "rollout.progressDeadlineSeconds: expected more than minReadySeconds (%d), was %d" (int $rollout.minReadySeconds) (int $rollout.progressDeadlineSeconds)) -}}
{{- end -}}
{{- /* At rest a worker takes 190 MB and who keeps them 40 (docs/decisions/workers.md). */ -}}
{{- $workers := int .Values.workers -}}
{{- $memory := dig "limits" "memory" "" .Values.resources | toString -}}
{{- $unit := regexFind "[MG]i$" $memory -}}
{{- if and (gt $workers 1) $unit -}}
{{- $has := mulf (trimSuffix $unit $memory | float64) (ternary 1024 1 (eq $unit "Gi")) -}}
{{- $needed := add 40 (mul 190 $workers) -}}
{{- if lt $has (float64 $needed) -}}
{{- fail (printf "resources.limits.memory: expected at least %dMi for %d workers, was %s: the pod would be killed" $needed $workers $memory) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.tls.grpc.authoritiesSecret (not .Values.tls.grpc.certificateSecret) -}}
{{- fail "tls.grpc.certificateSecret: expected one beside authoritiesSecret, was none: without TLS callers show no certificate" -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if regexMatch "^AUCTION_(SERVER__(HOST|PORT|HTTP_PORT|WORKERS|NOTICE_MS|DRAIN_S|CONNECTION_[A-Z_]+|KEEPALIVE_[A-Z_]+|(HTTP_)?TLS(__[A-Z]+)?)|LOG__DIR)$" .name -}}
{{- fail (printf "extraEnv: expected nothing that the chart sets itself, was %s; values.yaml has a value for it" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
