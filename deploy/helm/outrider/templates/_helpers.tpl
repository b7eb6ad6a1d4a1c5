{{- define "outrider.labels" -}}
{{ include "outrider.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "outrider.selector" -}}
app.kubernetes.io/name: outrider
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "outrider.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{/* What a pod may not: root, another user's files, calls of the system that few need. */}}
{{- define "outrider.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "outrider.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "outrider.env" -}}
env:
  - {name: HF_HOME, value: /home/outrider/.cache/huggingface}
  {{- if eq .Values.mode "ray" }}
  - {name: RAY_USAGE_STATS_ENABLED, value: "0"}
  # Else engines would compute at the least priority but four.
  - {name: RAY_worker_niceness, value: "0"}
  {{- end }}
  {{- with .Values.apiKey }}
  {{- if .existingSecret }}
  - name: OUTRIDER_API_KEY
    valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .key }}}}
  {{- end }}
  {{- end }}
{{- with .Values.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "outrider.resources" -}}
resources:
  {{- $limits := .Values.resources.limits | default dict }}
  {{- if .Values.gpus }}
  {{- $limits = merge (dict "nvidia.com/gpu" .Values.gpus) $limits }}
  {{- end }}
  {{- toYaml (merge (dict "limits" $limits) .Values.resources) | nindent 2 }}
{{- end }}

{{/* The root's file system is read-only; what is written goes into one of these. */}}
{{- define "outrider.volumes" -}}
- name: tmp
  emptyDir: {}
- name: cache
  {{- if .Values.persistence.enabled }}
  persistentVolumeClaim: {claimName: {{ .Values.persistence.existingClaim | default .Release.Name }}}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- end }}

{{- define "outrider.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: cache, mountPath: /home/outrider/.cache}
{{- end }}

{{- define "outrider.placement" -}}
{{- range $name := list "imagePullSecrets" "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
{{- with index $.Values $name }}
{{ $name }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "outrider.scaled" -}}
{{- if ne .Values.autoscaling.kind "none" }}true{{ end }}
{{- end }}

{{/* What fits together, and says so where it does not. */}}
{{- define "outrider.check" -}}
{{- $kind := .Values.autoscaling.kind }}
{{- if and (eq .Values.mode "server") (eq $kind "ray") }}
{{- fail "autoscaling.kind=ray is for mode=ray; give none, hpa or keda" }}
{{- end }}
{{- if and (eq .Values.mode "ray") (has $kind (list "hpa" "keda")) }}
{{- fail (printf "autoscaling.kind=%s is for mode=server; a RayService is scaled by Ray: give none or ray" $kind) }}
{{- end }}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) }}
{{- fail (printf "autoscaling.minReplicas=%v is more than maxReplicas=%v" .Values.autoscaling.minReplicas .Values.autoscaling.maxReplicas) }}
{{- end }}
{{- $several := or (gt (int .Values.replicas) 1) (include "outrider.scaled" .) (eq .Values.mode "ray") }}
{{- if and $several .Values.persistence.enabled (not .Values.persistence.existingClaim) (eq .Values.persistence.accessMode "ReadWriteOnce") }}
{{- fail "several pods cannot share a volume with persistence.accessMode=ReadWriteOnce; give ReadWriteMany and a storageClass that has it, or persistence.enabled=false, with which each pod fetches its model" }}
{{- end }}
{{- end }}
