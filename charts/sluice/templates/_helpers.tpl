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

{{/* Whom the operator's roles are for. */}}
{{- define "sluice.subjects" -}}
- kind: ServiceAccount
  name: {{ include "sluice.serviceAccount" . | quote }}
  namespace: {{ .Release.Namespace | quote }}
{{- end }}

{{/* The namespaces where fleets may be, as JSON: the release's, and those of the values. */}}
{{- define "sluice.fleetNamespaces" -}}
{{ concat (list .Release.Namespace) .Values.fleetNamespaces | uniq | toJson }}
{{- end }}

{{/* What the operator makes of a fleet. */}}
{{- define "sluice.fleetRules" -}}
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, serviceaccounts, configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch, delete]
{{- end }}

{{/* A dictionary of strings, each of which stays what it is: of one that ends with empty lines `toYaml` makes others where it is the
last that is written. */}}
{{- define "sluice.strings" -}}
{{- range $key, $value := . }}
{{ $key | quote }}: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* Labels of every object. Users' own come first, so that they replace none of these. */}}
{{- define "sluice.labels" -}}
{{ include "sluice.labelsOf" (dict "root" . "name" "sluice-operator") }}
{{- end }}

{{/* The same of something that is called otherwise, and with more labels: a dictionary of `root`, `name` and `labels`. */}}
{{- define "sluice.labelsOf" -}}
{{- $root := .root -}}
{{- $ours := dict
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/managed-by" $root.Release.Service
  "app.kubernetes.io/part-of" "sluice"
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/name" .name
  "app.kubernetes.io/instance" $root.Release.Name
-}}
{{ include "sluice.strings" (merge $ours (.labels | default dict) $root.Values.commonLabels) | trim }}
{{- end }}

{{/* Labels that the operator's pods are known by. */}}
{{- define "sluice.selector" -}}
app.kubernetes.io/name: sluice-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Secrets to pull images with. */}}
{{- define "sluice.imagePullSecrets" -}}
{{- with .Values.imagePullSecrets -}}
imagePullSecrets:
{{- range . }}
- name: {{ . | quote }}
{{- end }}
{{- end }}
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
