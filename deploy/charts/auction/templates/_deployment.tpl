{{/* A Deployment of servers. Takes root, track, name, image, config, and replicas or null where something scales it. */}}
{{- define "auction.deployment" -}}
{{- $values := .root.Values -}}
{{- $tls := include "auction.tlsSecrets" .root | fromYaml -}}
{{- include "auction.checked" .root -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .name | quote }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- include "auction.labels" .root | nindent 4 }}
    app.kubernetes.io/component: server
    track: {{ .track }}
spec:
  {{- if not (kindIs "invalid" .replicas) }}
  replicas: {{ .replicas }}
  {{- end }}
  minReadySeconds: {{ $values.rollout.minReadySeconds }}
  revisionHistoryLimit: {{ $values.rollout.revisionHistoryLimit }}
  progressDeadlineSeconds: {{ $values.rollout.progressDeadlineSeconds }}
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxUnavailable: {{ $values.rollout.maxUnavailable }}
      maxSurge: {{ $values.rollout.maxSurge }}
  selector:
    matchLabels:
      {{- include "auction.shared" .root | nindent 6 }}
      track: {{ .track }}
  template:
    metadata:
      labels:
        {{- /* What selects a pod counts, whatever podLabels say. */}}
        {{- mergeOverwrite (deepCopy ($values.podLabels | default dict)) (include "auction.shared" .root | fromYaml) (dict "track" .track) | toYaml | nindent 8 }}
      annotations:
        {{- mergeOverwrite (deepCopy ($values.podAnnotations | default dict)) (dict "checksum/config" (include "auction.checksum" .)) | toYaml | nindent 8 }}
    spec:
      serviceAccountName: {{ $values.serviceAccounts.server.name | quote }}
      automountServiceAccountToken: {{ $values.automountServiceAccountToken }}
      # A Service called `auction` would otherwise be told in variables that look like settings.
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ include "auction.terminationSeconds" .root }}
      {{- with $values.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.scheduling.priorityClassName }}
      priorityClassName: {{ . | quote }}
      {{- end }}
      {{- with $values.scheduling.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.scheduling.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.dnsConfig }}
      dnsConfig: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if ne $values.scheduling.zoneSpread "off" }}
      topologySpreadConstraints:
        - topologyKey: topology.kubernetes.io/zone
          maxSkew: 1
          whenUnsatisfiable: {{ $values.scheduling.zoneSpread }}
          matchLabelKeys: [pod-template-hash]
          labelSelector:
            matchLabels:
              {{- include "auction.shared" .root | nindent 14 }}
              track: {{ .track }}
      {{- end }}
      {{- if $values.scheduling.hostAntiAffinity }}
      affinity:
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
            - weight: 100
              podAffinityTerm:
                topologyKey: kubernetes.io/hostname
                labelSelector:
                  matchLabels:
                    {{- include "auction.shared" .root | nindent 20 }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        fsGroup: 65532
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: server
          image: {{ include "auction.image" . | quote }}
          imagePullPolicy: {{ $values.image.pullPolicy }}
          args:
            - serve
            - --config
            - /etc/auction/auction.yaml
            {{- with $values.extraArgs }}{{- toYaml . | nindent 12 }}{{- end }}
          {{- $secrets := include "auction.bidderSecrets" . }}
          {{- if or $secrets $values.extraEnv }}
          env:
            {{- $secrets | nindent 12 }}
            {{- with $values.extraEnv }}{{- toYaml . | nindent 12 }}{{- end }}
          {{- end }}
          ports:
            - {name: grpc, containerPort: 7400}
            - {name: http, containerPort: 7480}
          {{- $http := or (eq $values.probes.kind "http") (and (eq $values.probes.kind "grpc") (ne $values.tls.grpc.certificateSecret "")) }}
          {{- $scheme := ternary (dict "scheme" "HTTPS") dict (ne $values.tls.http.certificateSecret "") }}
          {{- $tcp := eq $values.probes.kind "tcp" }}
          readinessProbe:
            {{- if $http }}
            httpGet: {{- merge (dict "path" "/readyz" "port" "http") $scheme | toYaml | nindent 14 }}
            {{- else if $tcp }}
            tcpSocket: {port: grpc}
            {{- else }}
            grpc: {port: 7400, service: auction}
            {{- end }}
            timeoutSeconds: {{ $values.probes.timeoutSeconds }}
            periodSeconds: {{ $values.probes.periodSeconds }}
            failureThreshold: {{ $values.probes.failureThreshold }}
          livenessProbe:
            {{- $alive := dict "tcpSocket" (dict "port" "grpc") }}
            {{- if not $tcp }}{{- $alive = dict "httpGet" (merge (dict "path" "/healthz" "port" "http") $scheme) }}{{- end }}
            {{- toYaml $alive | nindent 12 }}
            timeoutSeconds: {{ $values.probes.timeoutSeconds }}
            periodSeconds: {{ $values.probes.periodSeconds }}
            failureThreshold: {{ $values.probes.failureThreshold }}
          # Kernels are loaded before a port is bound; nobody is restarted for that.
          startupProbe:
            {{- toYaml $alive | nindent 12 }}
            timeoutSeconds: {{ $values.probes.timeoutSeconds }}
            periodSeconds: {{ $values.probes.periodSeconds }}
            failureThreshold: {{ $values.probes.startupFailureThreshold }}
          {{- if $values.drain.preStopSeconds }}
          lifecycle:
            preStop:
              {{- if eq $values.drain.preStop "exec" }}
              exec: {command: [sleep, {{ $values.drain.preStopSeconds | quote }}]}
              {{- else }}
              sleep: {seconds: {{ $values.drain.preStopSeconds }}}
              {{- end }}
          {{- end }}
          resources: {{- toYaml $values.resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          volumeMounts:
            # The directory and not one file: a file mounted by subPath is never changed.
            - {name: config, mountPath: /etc/auction, readOnly: true}
            - {name: tmp, mountPath: /tmp}
            {{- if $values.eventLog.enabled }}
            - {name: log, mountPath: {{ $values.eventLog.path | quote }}}
            {{- end }}
            {{- range $secret, $volume := $tls }}
            - {name: {{ $volume }}, mountPath: {{ printf "/etc/auction-tls/%s" $secret | quote }}, readOnly: true}
            {{- end }}
            {{- with $values.extraVolumeMounts }}{{- toYaml . | nindent 12 }}{{- end }}
        {{- with $values.extraContainers }}{{- toYaml . | nindent 8 }}{{- end }}
      volumes:
        - name: config
          configMap: {name: {{ .name | quote }}}
        - name: tmp
          emptyDir: {sizeLimit: {{ int64 $values.tmpSizeMi }}Mi}
        {{- if $values.eventLog.enabled }}
        - name: log
          emptyDir: {sizeLimit: {{ int64 $values.eventLog.sizeMi }}Mi}
        {{- end }}
        {{- range $secret, $volume := $tls }}
        # Read by the group that fsGroup gives it, and by nobody else: 0440.
        - name: {{ $volume }}
          secret: {secretName: {{ $secret | quote }}, defaultMode: 288}
        {{- end }}
        {{- with $values.extraVolumes }}{{- toYaml . | nindent 8 }}{{- end }}
{{- end -}}

{{/* The ConfigMap of a Deployment. */}}
{{- define "auction.configmap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .name | quote }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- include "auction.labels" .root | nindent 4 }}
    track: {{ .track }}
data:
  auction.yaml: |
    {{- include "auction.config" . | nindent 4 }}
{{- end -}}
