{{/* The gateway's container, the same in both modes but for addresses and life cycle. */}}

{{- define "warmgate.apiPort" -}}
{{- if eq .Values.mode "sidecar" }}{{ .Values.sidecar.port }}{{ else }}8080{{ end }}
{{- end }}

{{/* What extraEnv has of these is left to it: a name that stands twice is refused by server-side apply. */}}
{{- define "warmgate.otlpEnv" -}}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .Values.otlpEndpoint | quote }}
- name: OTEL_SERVICE_NAME
  value: {{ include "warmgate.fullname" . | quote }}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME)
{{- end }}

{{/* Addresses and ports are variables, not part of the file, because the image sets some of the
     same variables, and the environment wins over the file: a sidecar's API must not be open. */}}
{{- define "warmgate.env" -}}
# Also for `kubectl exec ... -- gateway doctor`, which should look at what is served.
- name: GATEWAY_CONFIG
  value: /etc/warmgate/config/warmgate.yaml
- name: GATEWAY_SERVER__HOST
  value: {{ eq .Values.mode "sidecar" | ternary "127.0.0.1" .Values.bindAddress | quote }}
- name: GATEWAY_SERVER__PORT
  value: {{ include "warmgate.apiPort" . | quote }}
- name: GATEWAY_SERVER__PROBE_HOST
  value: {{ .Values.bindAddress | quote }}
- name: GATEWAY_SERVER__PROBE_PORT
  value: {{ .Values.probePort | quote }}
{{- range $setting, $from := .Values.secrets }}
- name: GATEWAY_{{ upper $setting | replace "-" "_" }}_FILE
  value: /etc/warmgate/secrets/{{ $setting }}
{{- end }}
{{- if .Values.otlpEndpoint }}
{{- $given := dict }}
{{- range .Values.extraEnv }}
{{- $_ := set $given .name true }}
{{- end }}
{{- range include "warmgate.otlpEnv" . | fromYamlArray }}
{{- if not (hasKey $given .name) }}
{{ toYaml (list .) }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Nothing for `assigned`: the cluster gives its own. (A word, because Helm does not hand a null on to
     the chart of a dependency.) */}}
{{- define "warmgate.user" -}}
{{- if not (has .Values.runAsUser (list nil "assigned")) }}
runAsUser: {{ int64 .Values.runAsUser }}
runAsGroup: {{ int64 .Values.runAsUser }}
{{- end }}
{{- end }}

{{/* Of a pod: which nodes it may run on. */}}
{{- define "warmgate.nodes" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "warmgate.podSecurityContext" -}}
runAsNonRoot: true
{{- with include "warmgate.user" . }}
{{- . }}
fsGroup: {{ int64 $.Values.runAsUser }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "warmgate.containerSecurityContext" -}}
runAsNonRoot: true
{{- include "warmgate.user" . }}
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "warmgate.container" -}}
name: warmgate
image: {{ include "warmgate.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [serve]
env:
  {{- include "warmgate.env" . | nindent 2 }}
ports:
  {{- if eq .Values.mode "deployment" }}
  - name: api
    containerPort: {{ include "warmgate.apiPort" . }}
    protocol: TCP
  {{- end }}
  - name: probes
    containerPort: {{ .Values.probePort }}
    protocol: TCP
# It listens within a minute or is restarted; the app of a sidecar waits for this one. The probe port
# opens after the API's. Not /readyz: a model server that takes longer to load than we do would have
# us restarted again and again, and would keep the app of a sidecar from starting at all.
startupProbe:
  httpGet:
    path: /livez
    port: probes
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 60
# Only a dead event loop fails this one: a provider or Redis that is down is no reason to restart.
livenessProbe:
  httpGet:
    path: /livez
    port: probes
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- if or (eq .Values.mode "deployment") .Values.sidecar.gateReadiness }}
readinessProbe:
  httpGet:
    path: /readyz
    port: probes
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 2
{{- end }}
resources:
  {{- toYaml (eq .Values.mode "sidecar" | ternary .Values.sidecar.resources .Values.resources) | nindent 2 }}
securityContext:
  {{- include "warmgate.containerSecurityContext" . | nindent 2 }}
volumeMounts:
  - name: warmgate-config
    mountPath: /etc/warmgate/config
    readOnly: true
  {{- if .Values.secrets }}
  - name: warmgate-secrets
    mountPath: /etc/warmgate/secrets
    readOnly: true
  {{- end }}
  - name: warmgate-tmp
    mountPath: /tmp
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "warmgate.volumes" -}}
- name: warmgate-config
  configMap:
    name: {{ include "warmgate.fullname" . }}
{{- if .Values.secrets }}
- name: warmgate-secrets
  projected:
    # Readable without a group: a sidecar cannot choose its pod's fsGroup, and no other container
    # mounts this volume.
    defaultMode: 0444
    sources:
      {{- range $setting, $from := .Values.secrets }}
      - secret:
          name: {{ $from.existingSecret | quote }}
          items:
            - key: {{ $from.key | quote }}
              path: {{ $setting | quote }}
      {{- end }}
{{- end }}
- name: warmgate-tmp
  emptyDir:
    sizeLimit: 256Mi
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
