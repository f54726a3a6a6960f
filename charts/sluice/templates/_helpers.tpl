{{/* The chart's name. */}}
{{- define "sluice.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* What objects of the release are named after: the release alone when it says "sluice" already. */}}
{{- define "sluice.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" }}
{{- else if contains (include "sluice.name" .) .Release.Name }}
{{- .Release.Name | trunc 46 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "sluice.name" .) | trunc 46 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "sluice.operator" -}}
{{ include "sluice.fullname" . }}-operator
{{- end }}

{{- define "sluice.serviceAccount" -}}
{{ default (include "sluice.operator" .) .Values.serviceAccount.name }}
{{- end }}

{{/* The ConfigMap with the manifest of the release's fleet. It owns that fleet: by another name there is another ConfigMap, and
with the former the former fleet goes. */}}
{{- define "sluice.fleetConfigMap" -}}
{{ include "sluice.fullname" . }}-fleet-manifest-{{ .Values.fleet.name }}
{{- end }}

{{/* What the operator keeps: the authority of the control channel, and what it remembers. */}}
{{- define "sluice.caSecret" -}}
{{ include "sluice.fullname" . }}-control-ca
{{- end }}
{{- define "sluice.memoryConfigMap" -}}
{{ include "sluice.fullname" . }}-memory
{{- end }}
{{- define "sluice.certificatesSecret" -}}
{{ include "sluice.fullname" . }}-certificates
{{- end }}

{{/* Labels of every object. */}}
{{- define "sluice.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: sluice
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{ include "sluice.selector" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels that the operator's pods are known by. */}}
{{- define "sluice.selector" -}}
app.kubernetes.io/name: sluice-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* An image, from its values and the chart's version. */}}
{{- define "sluice.image" -}}
{{- with .image }}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.version .tag }}
{{- end }}
{{- end }}
{{- end }}
