{{/* The server's configuration, and the times that follow from it. */}}

{{/* The server keeps a quarter of drain_s for its log (auction/server/server.py, LOG_SHARE): the least that covers both. */}}
{{- define "auction.drainSeconds" -}}
{{- $calls := div (add (mul (int .Values.drain.graceSeconds) 4) 2) 3 -}}
{{- $log := mul (int .Values.drain.flushSeconds) 4 -}}
{{- max $calls $log -}}
{{- end -}}

{{/* Two seconds to spare: the sleep, the signal and the exit are not exact. */}}
{{- define "auction.terminationSeconds" -}}
{{- $needed := add (int .Values.drain.preStopSeconds) (int .Values.drain.noticeSeconds) (int (include "auction.drainSeconds" .)) -}}
{{- $given := .Values.terminationGracePeriodSeconds -}}
{{- if and $given (le (int $given) (int $needed)) -}}
{{- fail (printf "terminationGracePeriodSeconds: expected more than %d (drain.preStopSeconds, drain.noticeSeconds and server.drain_s), was %d; raise it, or leave it out" $needed (int $given)) -}}
{{- end -}}
{{- $given | default (add $needed 2) -}}
{{- end -}}

{{/* The server deletes its oldest files at three quarters of the volume; a file more may be open by then. */}}
{{- define "auction.log" -}}
{{- $log := deepCopy (.config.log | default dict) -}}
{{- if .root.Values.eventLog.enabled -}}
{{- $room := mul (int64 .root.Values.eventLog.sizeMi) 1048576 -}}
{{- /* Of each worker one file is open. */ -}}
{{- $segment := mul (int64 ($log.segment_bytes | default 67108864)) (int64 .root.Values.workers) -}}
{{- $keep := int64 ($log.keep_bytes | default (min (div (mul $room 3) 4) (sub $room $segment))) -}}
{{- if gt (add $keep $segment) $room -}}
{{- fail (printf "config.log.keep_bytes: expected at most eventLog.sizeMi (%d MiB) less %d bytes of open files, was %d: the pod would be evicted" (int64 .root.Values.eventLog.sizeMi) $segment $keep) -}}
{{- end -}}
{{- if lt $keep (mul 2 $segment) -}}
{{- fail (printf "config.log.keep_bytes: expected at least twice the open files of %d bytes, was %d; raise eventLog.sizeMi or lower config.log.segment_bytes" $segment $keep) -}}
{{- end -}}
{{- $_ := set $log "dir" .root.Values.eventLog.path -}}
{{- $_ := set $log "keep_bytes" $keep -}}
{{- end -}}
{{- toYaml $log -}}
{{- end -}}

{{/* Where certificates are, as settings of the server. A directory is called after its Secret: whatever a running pod reads
     in a newer configuration, it never takes another Secret's certificate for the one that is meant, and refuses one that
     it does not have. */}}
{{- define "auction.tlsFiles" -}}
{{- $files := dict -}}
{{- with .certificateSecret -}}
{{- $_ := set $files "certificate" (printf "/etc/auction-tls/%s/tls.crt" .) -}}
{{- $_ := set $files "key" (printf "/etc/auction-tls/%s/tls.key" .) -}}
{{- end -}}
{{- if .authoritiesSecret -}}
{{- $_ := set $files "authorities" (printf "/etc/auction-tls/%s/%s" .authoritiesSecret (.authoritiesKey | default "ca.crt")) -}}
{{- end -}}
{{- toYaml $files -}}
{{- end -}}

{{/* The Secrets that are mounted, each once: the name of each, and of its volume. Takes the root. */}}
{{- define "auction.tlsSecrets" -}}
{{- $found := dict -}}
{{- range concat (list .Values.tls.grpc .Values.tls.http) .Values.tls.bidders -}}
{{- range list .certificateSecret .authoritiesSecret -}}
{{- with . -}}
{{- $_ := set $found . (printf "tls-%s" (sha256sum . | trunc 12)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}

{{/* The whole file. Takes root and config, which is the stable one or the canary's. */}}
{{- define "auction.config" -}}
{{- $longest := int (dig "exchange" "tmax_max_ms" 500 .config) -}}
{{- if le (mul 1000 (int .root.Values.drain.graceSeconds)) $longest -}}
{{- fail (printf "drain.graceSeconds: expected more than the longest auction, %d ms (config.exchange.tmax_max_ms), was %d s" $longest (int .root.Values.drain.graceSeconds)) -}}
{{- end -}}
{{- $connections := .root.Values.connections -}}
{{- if le (mul 1000 (int $connections.graceSeconds)) $longest -}}
{{- fail (printf "connections.graceSeconds: expected more than the longest auction, %d ms (config.exchange.tmax_max_ms), was %d s" $longest (int $connections.graceSeconds)) -}}
{{- end -}}
{{- $server := deepCopy (.config.server | default dict) -}}
{{- $_ := set $server "host" "0.0.0.0" -}}
{{- $_ := set $server "port" 7400 -}}
{{- $_ := set $server "http_port" 7480 -}}
{{- if gt (int .root.Values.workers) 1 -}}
{{- $_ := set $server "workers" (int .root.Values.workers) -}}
{{- end -}}
{{- $_ := set $server "notice_ms" (mul 1000 (int .root.Values.drain.noticeSeconds)) -}}
{{- $_ := set $server "drain_s" (int (include "auction.drainSeconds" .root)) -}}
{{- $age := $connections.ageSeconds -}}
{{- $_ := set $server "connection_age_s" (ternary nil (int $age) (kindIs "invalid" $age)) -}}
{{- $_ := set $server "connection_grace_s" (int $connections.graceSeconds) -}}
{{- $_ := set $server "keepalive_s" (int $connections.keepaliveSeconds) -}}
{{- $_ := set $server "keepalive_timeout_s" (int $connections.keepaliveTimeoutSeconds) -}}
{{- $_ := set $server "connection_streams" (int $connections.streams) -}}
{{- $tls := .root.Values.tls -}}
{{- if $tls.grpc.certificateSecret -}}
{{- $_ := set $server "tls" (include "auction.tlsFiles" $tls.grpc | fromYaml) -}}
{{- end -}}
{{- if $tls.http.certificateSecret -}}
{{- $_ := set $server "http_tls" (include "auction.tlsFiles" $tls.http | fromYaml) -}}
{{- end -}}
{{- $whole := deepCopy .config -}}
{{- $_ := set $whole "server" $server -}}
{{- range $entry := $tls.bidders -}}
{{- $found := false -}}
{{- range $bidder := $whole.bidders -}}
{{- if eq $bidder.name $entry.bidder -}}
{{- $found = true -}}
{{- if hasPrefix "http://" ($bidder.http | default "") -}}
{{- fail (printf "tls.bidders: expected a bidder with grpc or an https URL, was %s with http" $bidder.name) -}}
{{- end -}}
{{- $own := $bidder.tls | default dict -}}
{{- $files := include "auction.tlsFiles" $entry | fromYaml -}}
{{- range $name, $_ := $files -}}
{{- if hasKey $own $name -}}
{{- fail (printf "tls.bidders: expected no tls.%s in config.bidders of %s beside a Secret with it, was one" $name $bidder.name) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $bidder "tls" (merge (deepCopy $own) $files) -}}
{{- end -}}
{{- end -}}
{{- if not $found -}}
{{- fail (printf "tls.bidders: expected the name of a bidder in config.bidders, was %s" $entry.bidder) -}}
{{- end -}}
{{- end -}}
{{- $log := include "auction.log" . | fromYaml -}}
{{- if $log -}}
{{- $_ := set $whole "log" $log -}}
{{- end -}}
{{- $text := toYaml $whole -}}
{{- if gt (len $text) 1000000 -}}
{{- fail (printf "config: expected at most 1000000 bytes, was %d: a ConfigMap takes no more; write fewer rules, or sizes and domains that share one" (len $text)) -}}
{{- end -}}
{{- $text -}}
{{- end -}}

{{/* A digest of what the server takes only at its start; the rest it reads again by itself. */}}
{{- define "auction.checksum" -}}
{{- $config := include "auction.config" . | fromYaml -}}
{{- $limits := pick ($config.limits | default dict) "request_bytes" "inflation_ratio" -}}
{{- dict "server" $config.server "log" $config.log "limits" $limits | toJson | sha256sum -}}
{{- end -}}

{{/* Secrets of bidders as the environment of the server. The name and the address stand beside the secret: whatever the
     order of bidders in a file that is read again later, the secret stays with the address it was meant for. */}}
{{- define "auction.bidderSecrets" -}}
{{- $secret := include "auction.secret" .root -}}
{{- $seen := dict -}}
{{- range $entry := .root.Values.bidderSecrets -}}
{{- if not $secret -}}
{{- fail "bidderSecrets: expected secrets.existingSecret or secrets.externalSecret to take them from, was neither" -}}
{{- end -}}
{{- $found := false -}}
{{- range $row, $bidder := $.config.bidders -}}
{{- if eq $bidder.name $entry.bidder -}}
{{- $found = true -}}
{{- if not (hasKey $seen $bidder.name) }}
{{- $_ := set $seen $bidder.name true }}
- name: AUCTION_BIDDERS__{{ $row }}__NAME
  value: {{ $bidder.name | quote }}
- name: AUCTION_BIDDERS__{{ $row }}__{{ if $bidder.grpc }}GRPC{{ else }}HTTP{{ end }}
  value: {{ $bidder.grpc | default $bidder.http | quote }}
{{- end }}
- name: AUCTION_BIDDERS__{{ $row }}__HEADERS__{{ $entry.header | upper | replace "-" "_" }}
  valueFrom:
    secretKeyRef: {name: {{ $secret | quote }}, key: {{ $entry.key | quote }}}
{{- end -}}
{{- end -}}
{{- if not $found -}}
{{- fail (printf "bidderSecrets: expected the name of a bidder in config.bidders, was %s" $entry.bidder) -}}
{{- end -}}
{{- end -}}
{{- end -}}
