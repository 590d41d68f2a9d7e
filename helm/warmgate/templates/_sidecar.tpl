{{/* For charts of apps: include these with the context of this chart as a dependency,
     `.Subcharts.warmgate`, and set `warmgate.mode: sidecar` in the app's values. */}}

{{/* An item of `initContainers`. restartPolicy: Always makes it a sidecar: it starts before the
     app, the app waits for its startup probe, and it is stopped after the app. */}}
{{- define "warmgate.sidecar" -}}
{{- if ne .Values.mode "sidecar" }}
{{- fail "\nThe template warmgate.sidecar needs `mode: sidecar` among the values of warmgate." }}
{{- end -}}
- {{ include "warmgate.container" . | nindent 2 | trim }}
    # The pod is another's, and may hand its token to every container; but not where something else is.
    - name: warmgate-config
      mountPath: /var/run/secrets/kubernetes.io/serviceaccount
      readOnly: true
  restartPolicy: Always
{{- end }}

{{/* Items of `volumes`. */}}
{{- define "warmgate.sidecarVolumes" -}}
{{- include "warmgate.volumes" . }}
{{- end }}

{{/* Items of `env` of the app's container: the official SDKs read these. */}}
{{- define "warmgate.sidecarEnv" -}}
- name: OPENAI_BASE_URL
  value: http://127.0.0.1:{{ include "warmgate.apiPort" . }}/v1
- name: ANTHROPIC_BASE_URL
  value: http://127.0.0.1:{{ include "warmgate.apiPort" . }}
{{- end }}

{{/* An annotation of the pod: rolls it when the gateway's configuration changes. */}}
{{- define "warmgate.sidecarAnnotations" -}}
{{- if .Values.rollOnConfigChange -}}
checksum/warmgate-config: {{ include "warmgate.configChecksum" . }}
{{- end }}
{{- end }}
