{{/* Fields of `outrider.cluster.config.ClusterConfig`. */}}
{{- define "outrider.rayArguments" -}}
{{- $arguments := dict "model" .Values.model "replicas" .Values.replicas "cores" (int .Values.ray.cores) }}
{{- if eq .Values.autoscaling.kind "ray" }}
{{- $_ := set $arguments "replicas" .Values.autoscaling.minReplicas }}
{{- $_ := set $arguments "max_replicas" .Values.autoscaling.maxReplicas }}
{{- end }}
{{- with .Values.gpus }}
{{- $_ := set $arguments "gpus" . }}
{{- end }}
{{- with .Values.options }}
{{- $_ := set $arguments "options" . }}
{{- end }}
{{- with .Values.server }}
{{- $_ := set $arguments "server" . }}
{{- end }}
{{- toYaml $arguments }}
{{- end }}

{{/* The head needs no graphics processor: nothing that leads a pod to one is its. */}}
{{- define "outrider.rayPlacement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if not .Values.gpus }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "outrider.rayVolumes" -}}
{{ include "outrider.volumes" . }}
- name: shared-memory
  emptyDir: {medium: Memory, sizeLimit: {{ .Values.ray.sharedMemory }}}
{{- end }}

{{- define "outrider.rayMounts" -}}
{{ include "outrider.mounts" . }}
- {name: shared-memory, mountPath: /dev/shm}
{{- end }}
