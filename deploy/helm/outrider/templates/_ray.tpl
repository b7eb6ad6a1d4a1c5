{{/* Of `outrider.cluster.replicas:app`. */}}
{{- define "outrider.rayArguments" -}}
{{- $arguments := dict "model" .Values.model "replicas" .Values.replicas }}
{{- if eq .Values.autoscaling.kind "ray" }}
{{- $arguments = dict "model" .Values.model "min_replicas" .Values.autoscaling.minReplicas "max_replicas" .Values.autoscaling.maxReplicas }}
{{- end }}
{{- toYaml (merge $arguments .Values.options) }}
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
