{{/* The gateway's YAML file, and the checks that a schema cannot express. */}}

{{/* Seconds that running streams may take after SIGTERM: whatever the grace period leaves. A
     sidecar is stopped after the app, its only client, so nothing is left to wait for. */}}
{{- define "warmgate.drainSeconds" -}}
{{- $given := (.Values.config.server | default dict).drain_timeout_s }}
{{- if $given }}{{ $given }}
{{- else if eq .Values.mode "sidecar" }}5
{{- else }}{{ sub (int .Values.terminationGracePeriodSeconds) (add (int .Values.preStopSleepSeconds) 20) }}
{{- end }}
{{- end }}

{{- define "warmgate.config" -}}
{{- $drain := include "warmgate.drainSeconds" . | float64 }}
{{- if eq .Values.mode "deployment" }}
{{- $left := sub (int .Values.terminationGracePeriodSeconds) (add (int .Values.preStopSleepSeconds) 5) | float64 }}
{{- if or (le $drain 0.0) (gt $drain $left) }}
{{- fail (printf "\nterminationGracePeriodSeconds (%v) is too short: it must hold preStopSleepSeconds (%v), config.server.drain_timeout_s (%v, more than 0) and 5 s to end." .Values.terminationGracePeriodSeconds .Values.preStopSleepSeconds $drain) }}
{{- end }}
{{- end }}
{{- $config := deepCopy .Values.config }}
{{- $store := $config.store | default dict }}
{{- if regexMatch "://[^/]*@" ($store.url | default "") }}
{{- fail "\nconfig.store.url carries a credential, and a ConfigMap is no place for one: put the URL into a Secret and name it in secrets.store__url." }}
{{- end }}
{{- if hasKey .Values.secrets "store__url" }}
{{- $_ := set $config "store" (omit $store "url") }}
{{- end }}
{{- $_ := set $config "server" (merge (dict "drain_timeout_s" $drain) ($config.server | default dict)) }}
{{- toYaml $config }}
{{- end }}

{{/* Rolls the pods when the configuration changes. Taken from the text, not from the manifest, so
     that it also works from the templates of a parent chart. */}}
{{- define "warmgate.configChecksum" -}}
{{- include "warmgate.config" . | sha256sum }}
{{- end }}
