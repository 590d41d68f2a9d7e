{{/* The gateway's YAML file, and the checks that a schema cannot express. */}}

{{/* What the values ask for, as it stands there. */}}
{{- define "warmgate.givenConfig" -}}
{{- if eq .Values.mode "sidecar" }}
{{- toYaml (mergeOverwrite (deepCopy (.Values.sidecar.config | default dict)) (deepCopy .Values.config)) }}
{{- else }}
{{- toYaml .Values.config }}
{{- end }}
{{- end }}

{{/* Seconds that running streams may take after SIGTERM: whatever the grace period leaves. A
     sidecar is stopped after the app, its only client, so nothing is left to wait for. */}}
{{- define "warmgate.drainSeconds" -}}
{{- $server := (include "warmgate.givenConfig" . | fromYaml).server | default dict }}
{{- if $server.drain_timeout_s }}{{ $server.drain_timeout_s }}
{{- else if eq .Values.mode "sidecar" }}5
{{- else }}{{ sub (int .Values.terminationGracePeriodSeconds) (add (int .Values.preStopSleepSeconds) (int ($server.drain_delay_s | default 0)) 20) }}
{{- end }}
{{- end }}

{{/* What is turned on and would not be made: nobody should think that it is there. */}}
{{- define "warmgate.modeChecks" -}}
{{- if eq .Values.mode "sidecar" }}
{{- range $part := list "ingress" "httpRoute" "networkPolicy" "autoscaling" }}
{{- if (index $.Values $part).enabled }}
{{- fail (printf "\n%s.enabled is for mode: deployment; the pods of a sidecar are the app's, and so is what leads to them." $part) }}
{{- end }}
{{- end }}
{{- if and .Values.podMonitor.enabled (not .Values.sidecar.app.image) }}
{{- fail "\npodMonitor.enabled: the pods are of another chart, which knows their labels: have it select them, and the port named probes." }}
{{- end }}
{{- else if .Values.sidecar.app.image }}
{{- fail "\nsidecar.app.image is for mode: sidecar." }}
{{- end }}
{{- end }}

{{/* The URL of Redis as far as Helm can see it, `elsewhere` if it comes from a Secret; else empty. */}}
{{- define "warmgate.redis" -}}
{{- $url := ((include "warmgate.givenConfig" . | fromYaml).store | default dict).url | default "" }}
{{- $isElsewhere := hasKey .Values.secrets "store__url" }}
{{- range .Values.extraEnv }}
{{- $isElsewhere = or $isElsewhere (has .name (list "REDIS_URL" "GATEWAY_STORE__URL" "GATEWAY_STORE__URL_FILE")) }}
{{- end }}
{{- if $isElsewhere }}elsewhere{{ else if regexMatch "^rediss?(\\+sentinel|\\+cluster)?://" $url }}{{ $url }}{{ end }}
{{- end }}

{{/* A store that the gateway would not start with, or would go on without, ready and in silence. */}}
{{- define "warmgate.storeChecks" -}}
{{- $redis := include "warmgate.redis" . }}
{{- if and (hasKey .Values.secrets "store__password") (not $redis) }}
{{- fail "\nsecrets.store__password: there is no Redis that would ask for it: give its URL, in config.store.url or secrets.store__url." }}
{{- end }}
{{- if and (hasKey .Values.secrets "store__sentinel_password") (not (regexMatch "^(elsewhere|rediss?\\+sentinel:)" $redis)) }}
{{- fail "\nsecrets.store__sentinel_password: there is no Redis behind Sentinels that would ask for it: give its URL, in config.store.url or secrets.store__url." }}
{{- end }}
{{- $file := ((include "warmgate.givenConfig" . | fromYaml).store | default dict).url | default "sqlite:////var/lib/warmgate/warmgate/cache.sqlite" }}
{{- if and (not $redis) (hasPrefix "sqlite:" $file) }}
{{- $isWritable := false }}
{{- range append .Values.extraVolumeMounts (dict "mountPath" "/tmp") }}
{{- $isWritable = or $isWritable (and (not .readOnly) (hasPrefix (printf "sqlite:///%s/" (trimSuffix "/" .mountPath)) $file)) }}
{{- end }}
{{- if not $isWritable }}
{{- fail (printf "\nconfig.store.url: %s is where the container cannot write, and the gateway would serve without it: mount a volume there (extraVolumes, extraVolumeMounts), or write memory://." $file) }}
{{- end }}
{{- end }}
{{- $ofSidecar := ((.Values.sidecar.config | default dict).store | default dict).url }}
{{- $url := (.Values.config.store | default dict).url }}
{{- if and (eq .Values.mode "sidecar") $ofSidecar $url (ne $ofSidecar $url) }}
{{- fail (printf "\nsidecar.config.store.url: config.store.url (%s) wins over it, if only by default: give it there." $url) }}
{{- end }}
{{- end }}

{{/* Without rules of one's own only the ports that providers have are open: of (list . CONFIG). */}}
{{- define "warmgate.upstreamChecks" -}}
{{- $root := index . 0 }}
{{- range $name, $upstream := (index . 1).upstreams | default dict }}
{{- $urls := list ($upstream.base_url | default "") ($upstream.dns | default "") }}
{{- range $upstream.backends }}
{{- if kindIs "string" . }}{{ $urls = append $urls . }}{{ else }}{{ $urls = append $urls .url }}{{ end }}
{{- end }}
{{- range compact $urls }}
{{- $port := regexFind "^https?://[^/]*" . | regexFind ":[0-9]+$" | trimPrefix ":" | default (hasPrefix "https:" . | ternary "443" "80") }}
{{- if not (has $port (toStrings $root.Values.networkPolicy.upstreamPorts)) }}
{{- fail (printf "\nnetworkPolicy lets nothing through to config.upstreams.%s, at port %s: add a rule to extraEgress, or the port to upstreamPorts." $name $port) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "warmgate.adminPort" -}}
{{- $admin := (include "warmgate.givenConfig" . | fromYaml).admin | default dict }}
{{- if hasKey $admin "port" }}{{ $admin.port | default 0 }}{{ else }}9181{{ end }}
{{- end }}

{{- define "warmgate.config" -}}
{{- include "warmgate.modeChecks" . }}
{{- include "warmgate.storeChecks" . }}
{{- $drain := include "warmgate.drainSeconds" . | float64 }}
{{- $config := include "warmgate.givenConfig" . | fromYaml }}
{{- if eq .Values.mode "deployment" }}
{{- $delay := ($config.server | default dict).drain_delay_s | default 0 }}
{{- $left := subf (float64 .Values.terminationGracePeriodSeconds) .Values.preStopSleepSeconds $delay 5 }}
{{- if or (le $drain 0.0) (gt $drain $left) }}
{{- fail (printf "\nterminationGracePeriodSeconds (%v) is too short: it must hold preStopSleepSeconds (%v), config.server.drain_delay_s (%v), config.server.drain_timeout_s (%v, more than 0) and 5 s to end." .Values.terminationGracePeriodSeconds .Values.preStopSleepSeconds $delay $drain) }}
{{- end }}
{{- end }}
{{- $store := $config.store | default dict }}
{{- $credential := "://[^/\\s]*@|[?&]password=" }}
{{- if regexMatch $credential ($store.url | default "") }}
{{- fail "\nconfig.store.url carries a credential, and a ConfigMap is no place for one: put the URL into a Secret and name it in secrets.store__url." }}
{{- end }}
{{- range $name, $upstream := $config.upstreams | default dict }}
{{- if regexMatch $credential (toYaml $upstream) }}
{{- fail (printf "\nconfig.upstreams.%s carries a credential in a URL, and a ConfigMap is no place for one: give secrets.upstreams__%s__api_key." $name $name) }}
{{- end }}
{{- end }}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.extraEgress) }}
{{- if include "warmgate.redis" . }}
{{- fail "\nnetworkPolicy.extraEgress lets nothing through to Redis, and the gateway would serve without its cache, ready and in silence: add a rule (docs/how-to/kubernetes.md)." }}
{{- end }}
{{- if .Values.otlpEndpoint }}
{{- fail "\nnetworkPolicy.extraEgress lets nothing through to otlpEndpoint: add a rule." }}
{{- end }}
{{- include "warmgate.upstreamChecks" (list . $config) }}
{{- end }}
{{- if and .Values.networkPolicy.enabled .Values.podMonitor.enabled (not .Values.networkPolicy.metricsFrom) }}
{{- fail "\nnetworkPolicy.metricsFrom lets nobody read what podMonitor asks for: add the peers of Prometheus." }}
{{- end }}
{{- if hasKey .Values.secrets "store__url" }}
{{- $_ := set $config "store" (omit $store "url") }}
{{- end }}
{{- $known := concat (list "openai" "anthropic") (keys ($config.upstreams | default dict)) }}
{{- range $setting := keys .Values.secrets | sortAlpha }}
{{- $parts := splitList "__" $setting }}
{{- if and (eq (first $parts) "upstreams") (not (has (index $parts 1) $known)) }}
{{- fail (printf "\nsecrets.%s: there is no config.upstreams.%s whose key this could be." $setting (index $parts 1)) }}
{{- end }}
{{- end }}
{{- $ports := list (include "warmgate.apiPort" . | int) (int .Values.probePort) (include "warmgate.adminPort" . | int) }}
{{- if has 0 $ports }}
{{- fail "\nconfig.admin.port: 0 is another port at each start, which nobody knows: leave it out, or give one." }}
{{- end }}
{{- if ne (len (uniq $ports)) 3 }}
{{- fail (printf "\nThe ports of the API, the probes and /admin/ must differ, and are %v: see sidecar.port, probePort and config.admin.port." $ports) }}
{{- end }}
{{- $host := ($config.admin | default dict).host | default "127.0.0.1" }}
{{- $isOpen := not (regexMatch "^(127\\.[0-9.]+|::1|\\[::1\\]|localhost)$" $host) }}
{{- if and $isOpen (not (hasKey .Values.secrets "admin__token")) }}
{{- fail (printf "\nconfig.admin.host (%s) can be reached from other pods, and /admin/ would ask them for nothing: give secrets.admin__token, or leave it on 127.0.0.1 (kubectl port-forward gets there)." $host) }}
{{- end }}
{{- if and .Values.networkPolicy.enabled $isOpen (not .Values.networkPolicy.adminFrom) }}
{{- fail (printf "\nnetworkPolicy.adminFrom lets nobody get to /admin/, which config.admin.host (%s) has opened: add peers, or leave it on 127.0.0.1." $host) }}
{{- end }}
{{- if and .Values.networkPolicy.adminFrom (not $isOpen) }}
{{- fail (printf "\nnetworkPolicy.adminFrom: /admin/ listens on %s, where nobody gets from outside of the pod: set config.admin.host and secrets.admin__token." $host) }}
{{- end }}
{{- if regexMatch $credential (.Values.otlpEndpoint | default "") }}
{{- fail "\notlpEndpoint carries a credential: leave it out of the URL, and give OTEL_EXPORTER_OTLP_HEADERS in extraEnv by valueFrom.secretKeyRef." }}
{{- end }}
{{- $names := list }}
{{- range .Values.extraEnv }}
{{- if has .name $names }}
{{- fail (printf "\nextraEnv: %s stands there twice." .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- if regexMatch "^(GATEWAY_SERVER__(HOST|PORT|PROBE_HOST|PROBE_PORT)|GATEWAY_CONFIG)(_FILE)?$" .name }}
{{- fail (printf "\nextraEnv: %s is the chart's own: see bindAddress, probePort, sidecar.port and config." .name) }}
{{- end }}
{{- if and (regexMatch "^(GATEWAY_.*|REDIS_URL)$" .name) (hasKey . "value") }}
{{- fail (printf "\nextraEnv: %s with a plain value: settings belong into `config`, credentials into `secrets`." .name) }}
{{- end }}
{{- if or (regexMatch $credential (.value | default "")) (and (regexMatch "_HEADERS$" .name) (regexMatch "(?i)(auth|key|token)[^,=]*=" (.value | default ""))) }}
{{- fail (printf "\nextraEnv: the value of %s carries a credential: take it from a Secret by valueFrom.secretKeyRef." .name) }}
{{- end }}
{{- end }}
{{- $_ := set $config "server" (merge (dict "drain_timeout_s" $drain) ($config.server | default dict)) }}
{{- toYaml $config }}
{{- end }}

{{/* Annotations of the pods. */}}
{{- define "warmgate.annotations" -}}
{{- if .Values.rollOnConfigChange -}}
checksum/config: {{ include "warmgate.configChecksum" . }}
{{- end }}
{{- end }}

{{/* Rolls the pods when the configuration changes. Taken from the text, not from the manifest, so
     that it also works from the templates of a parent chart. */}}
{{- define "warmgate.configChecksum" -}}
{{- include "warmgate.config" . | sha256sum }}
{{- end }}
