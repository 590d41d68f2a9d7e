{{/* Names and labels. */}}

{{- define "warmgate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* 52 characters leave room for the longest suffixes, "-connection" and "-dashboard". Small letters,
     as names must have: the alias of a dependency may have others. */}}
{{- define "warmgate.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | lower | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | lower | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "warmgate.component" -}}
{{- if eq .Values.mode "sidecar" }}app{{ else }}gateway{{ end }}
{{- end }}

{{/* What selectors use: these never change during the life of a release. */}}
{{- define "warmgate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "warmgate.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: {{ include "warmgate.component" . }}
{{- end }}

{{/* Without the chart's version: a new chart with the same pods must not restart them. */}}
{{- define "warmgate.stableLabels" -}}
{{ include "warmgate.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: warmgate
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "warmgate.podLabels" -}}
{{- include "warmgate.joined" (list .Values.commonLabels .Values.podLabels (include "warmgate.stableLabels" . | fromYaml)) }}
{{- end }}

{{/* Mappings as one, the last one wins: a key that stands twice in a manifest is a fault. */}}
{{- define "warmgate.joined" -}}
{{- $joined := dict }}
{{- range . }}
{{- $joined = mergeOverwrite $joined (deepCopy (. | default dict)) }}
{{- end }}
{{- toYaml $joined }}
{{- end }}

{{- define "warmgate.labels" -}}
{{- include "warmgate.labelsAnd" (list . dict) }}
{{- end }}

{{/* Those, and more: of (list . MORE). */}}
{{- define "warmgate.labelsAnd" -}}
{{- $root := index . 0 }}
{{- $chart := printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- include "warmgate.joined" (list $root.Values.commonLabels (index . 1) (include "warmgate.stableLabels" $root | fromYaml) (dict "helm.sh/chart" $chart)) }}
{{- end }}

{{- define "warmgate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "warmgate.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "warmgate.image" -}}
{{- with .Values.image }}
{{- if eq (.tag | default "") "latest" }}
{{- fail "\nimage.tag: `latest` is another image every day, and nobody can go back to it: name a version, or give image.digest." }}
{{- end }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) }}
{{- end }}
{{- end }}
{{- end }}

{{/* How many pods there may be; the disruption budget exists for more than one. */}}
{{- define "warmgate.mostReplicas" -}}
{{- if .Values.autoscaling.enabled }}{{ .Values.autoscaling.maxReplicas }}{{ else }}{{ .Values.replicaCount }}{{ end }}
{{- end }}
