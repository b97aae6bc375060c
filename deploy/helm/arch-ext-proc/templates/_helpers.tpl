{{- define "arch.name" -}}
{{- default .Release.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "arch.selector" -}}
app.kubernetes.io/name: arch-ext-proc
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "arch.labels" -}}
{{ include "arch.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "arch.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "arch.secret" -}}
{{- if .Values.secret.existing -}}{{ .Values.secret.existing }}
{{- else if .Values.secret.values -}}{{ include "arch.name" . }}{{- end -}}
{{- end -}}

{{- define "arch.configMap" -}}
{{- .Values.existingConfigMap | default (include "arch.name" .) -}}
{{- end -}}

{{/* A port for each worker: the first is called grpc, the others grpc-1 and so on. */}}
{{- define "arch.ports" -}}
{{- $first := int .Values.config.server.port -}}
{{- range $worker := until (int (.Values.config.server.workers | default 1)) }}
- {name: grpc{{ if $worker }}-{{ $worker }}{{ end }}, port: {{ add $first $worker }}}
{{- end -}}
{{- end -}}

{{- define "arch.checked" -}}
{{- if ne (toString .Values.config.server.address) "0.0.0.0" }}
{{- fail "config.server.address must be 0.0.0.0: Envoy reaches the server by the pod's address" }}
{{- end }}
{{- if ne (toString .Values.config.admin.address) "0.0.0.0" }}
{{- fail "config.admin.address must be 0.0.0.0: the kubelet asks there whether the server is ready" }}
{{- end }}
{{- if and .Values.config.server.trust_network (not .Values.networkPolicy.enabled) }}
{{- fail "config.server.trust_network says that something keeps strangers out, and networkPolicy.enabled is false: write config.server.token or config.server.tls, and trust_network: false" }}
{{- end }}
{{- $many := or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) }}
{{- if and $many .Values.state.claim }}
{{- fail "state.claim is for one replica: write replicas: 1, or name a Redis in config.rollouts.store" }}
{{- end }}
{{- $store := toString (dig "rollouts" "store" "" .Values.config) }}
{{- range .Values.config.routing_preferences }}
{{- if and .rollout $many (not (regexMatch "^(rediss?://|\\$)" $store)) }}
{{- fail (printf "the rollout of %q needs a store that all replicas share: name a Redis in config.rollouts.store, or write replicas: 1" .name) }}
{{- end }}
{{- end }}
{{- end -}}
