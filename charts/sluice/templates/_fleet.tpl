{{/* What is wrong with fleet.spec: a line for each rule of a GatewayFleet that is broken and that JSON Schema can't say, in the
words that the API server would have. It would refuse the fleet when nobody looks any more: helm has long been done. */}}
{{- define "sluice.fleetProblems" -}}
{{- $spec := .Values.fleet.spec }}
{{- $defaults := .Files.Get "files/fleet-defaults.json" | fromJson }}
{{- $scaling := merge (deepCopy (default dict $spec.scaling)) $defaults.scaling }}
{{- if gt (int64 $scaling.minReplicas) (int64 $scaling.maxReplicas) }}
fleet.spec.scaling.minReplicas: {{ $scaling.minReplicas }} is above maxReplicas {{ $scaling.maxReplicas }}: minReplicas must not be above maxReplicas
{{- end }}
{{- if and (hasKey $scaling "replicas") (ne $scaling.mode "External") }}
fleet.spec.scaling.replicas: replicas is only for mode External; use minReplicas and maxReplicas, or set mode: External
{{- end }}
{{- include "sluice.targetProblems" (default list $scaling.targets) }}
{{- $drain := merge (deepCopy (default dict $spec.drain)) $defaults.drain }}
{{- if gt (include "sluice.ms" $drain.minDrain | int64) (include "sluice.ms" $drain.timeout | int64) }}
fleet.spec.drain.minDrain: {{ $drain.minDrain }} is above timeout {{ $drain.timeout }}: minDrain must not be above timeout, after which what still runs is cut
{{- end }}
{{- $times := list }}
{{- range list "maxAge" }}{{ $times = append $times (list "connection" .) }}{{ end }}
{{- range list "headerTimeout" "idleTimeout" "clientStallTimeout" "backendStallTimeout" }}{{ $times = append $times (list "limits" .) }}{{ end }}
{{- range $times }}
{{- $value := dig (index . 0) (index . 1) "1s" $spec }}
{{- if lt (include "sluice.ms" $value | int64) 1000 }}
fleet.spec.{{ index . 0 }}.{{ index . 1 }}: {{ $value }}: {{ index . 1 }} must be at least 1s
{{- end }}
{{- end }}
{{- range list "idleTimeout" "maxAge" }}
{{- $value := dig "limits" "webSocket" . "1s" $spec }}
{{- if lt (include "sluice.ms" $value | int64) 1000 }}
fleet.spec.limits.webSocket.{{ . }}: {{ $value }}: {{ . }} must be at least 1s
{{- end }}
{{- end }}
{{- $observe := dig "rollout" "canary" "observe" "0s" $spec }}
{{- if gt (include "sluice.ms" $observe | int64) 3600000 }}
fleet.spec.rollout.canary.observe: {{ $observe }}: observe must be at most 1h: later changes wait for so long
{{- end }}
{{- $limits := merge (deepCopy (default dict $spec.limits)) $defaults.limits }}
{{- if gt (int64 $limits.targetBytes) (int64 $limits.headerBytes) }}
fleet.spec.limits.targetBytes: {{ $limits.targetBytes }} is above headerBytes {{ $limits.headerBytes }}: targetBytes must not be above headerBytes, which the request target is part of
{{- end }}
{{- include "sluice.listenerProblems" (default list $spec.listeners) }}
{{- $address := $spec.clientAddress }}
{{- if kindIs "map" $address }}
{{- if eq (hasKey $address "trustedHops") (not (empty $address.trustedCIDRs)) }}
fleet.spec.clientAddress: give one of trustedHops and trustedCIDRs: they say which proxies are believed
{{- end }}
{{- range $at, $network := $address.trustedCIDRs }}
{{- include "sluice.networkProblem" (list (printf "clientAddress.trustedCIDRs[%d]" $at) $network) }}
{{- end }}
{{- end }}
{{- $service := default dict $spec.service }}
{{- $type := default $defaults.service.type $service.type }}
{{- if and (hasKey $service "externalTrafficPolicy") (eq $type "ClusterIP") }}
fleet.spec.service.externalTrafficPolicy: externalTrafficPolicy is only for the types NodePort and LoadBalancer
{{- end }}
{{- range list "loadBalancerClass" "loadBalancerSourceRanges" }}
{{- if and (hasKey $service .) (ne $type "LoadBalancer") }}
fleet.spec.service.{{ . }}: {{ . }} is only for type LoadBalancer
{{- end }}
{{- end }}
{{- range $at, $network := dig "loadBalancerSourceRanges" (list) $service }}
{{- include "sluice.networkProblem" (list (printf "service.loadBalancerSourceRanges[%d]" $at) $network) }}
{{- end }}
{{- range $list := list "allowedAddresses" "endpointCIDRs" }}
{{- range $at, $network := dig "backends" $list (list) $spec }}
{{- include "sluice.networkProblem" (list (printf "backends.%s[%d]" $list $at) $network) }}
{{- end }}
{{- end }}
{{- $template := default dict $spec.template }}
{{- range $at, $labels := dict "service.labels" (default dict $service.labels) "template.labels" (default dict $template.labels) }}
{{- include "sluice.keyProblems" (list $at $labels) }}
{{- range $key, $value := $labels }}
{{- if or (hasPrefix "sluice.dev/" $key) (has $key (list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/managed-by")) }}
fleet.spec.{{ $at }}: {{ $key }}: the operator itself sets app.kubernetes.io/name, app.kubernetes.io/instance, app.kubernetes.io/managed-by and what begins with sluice.dev/
{{- end }}
{{- end }}
{{- end }}
{{- range $at, $annotations := dict "service.annotations" (default dict $service.annotations) "template.annotations" (default dict $template.annotations) }}
{{- include "sluice.keyProblems" (list $at $annotations) }}
{{- range $key, $value := $annotations }}
{{- if hasPrefix "sluice.dev/" $key }}
fleet.spec.{{ $at }}: {{ $key }}: the operator itself sets what begins with sluice.dev/
{{- end }}
{{- end }}
{{- end }}
{{- include "sluice.keyProblems" (list "template.nodeSelector" (default dict $template.nodeSelector)) }}
{{- $requests := dig "resources" "requests" dict $template }}
{{- $limits := dig "resources" "limits" dict $template }}
{{- range list "cpu" "memory" }}
{{- $name := . }}
{{- range $which, $amounts := dict "requests" $requests "limits" $limits }}
{{- if hasKey $amounts $name }}
{{- if le (include "sluice.amount" (get $amounts $name) | float64) 0.0 }}
fleet.spec.template.resources.{{ $which }}.{{ $name }}: must be above 0
{{- end }}
{{- end }}
{{- end }}
{{- if and (hasKey $requests $name) (hasKey $limits $name) }}
{{- if gt (include "sluice.amount" (get $requests $name) | float64) (include "sluice.amount" (get $limits $name) | float64) }}
fleet.spec.template.resources.requests.{{ $name }}: requests.{{ $name }} must not be above limits.{{ $name }}
{{- end }}
{{- end }}
{{- end }}
{{- range $at, $toleration := dig "tolerations" (list) $template }}
{{- if and (not (hasKey $toleration "key")) (ne (dig "operator" "" $toleration) "Exists") }}
fleet.spec.template.tolerations[{{ $at }}].operator: without key, the operator must be Exists: any taint is borne
{{- end }}
{{- if and (hasKey $toleration "value") (eq (dig "operator" "" $toleration) "Exists") }}
fleet.spec.template.tolerations[{{ $at }}].value: the operator Exists takes no value
{{- end }}
{{- if and (hasKey $toleration "tolerationSeconds") (ne (dig "effect" "" $toleration) "NoExecute") }}
fleet.spec.template.tolerations[{{ $at }}].tolerationSeconds: tolerationSeconds is only for effect NoExecute
{{- end }}
{{- end }}
{{- $seen := list }}
{{- range $at, $spread := dig "topologySpreadConstraints" (list) $template }}
{{- $same := printf "%s %s" $spread.topologyKey $spread.whenUnsatisfiable }}
{{- if has $same $seen }}
fleet.spec.template.topologySpreadConstraints[{{ $at }}]: there is another with this topologyKey and whenUnsatisfiable
{{- end }}
{{- $seen = append $seen $same }}
{{- end }}
{{- include "sluice.expressionProblems" (list "fleet.spec" $spec) }}
{{- end }}

{{- define "sluice.targetProblems" -}}
{{- $seen := list }}
{{- range $at, $target := . }}
{{- $field := printf "fleet.spec.scaling.targets[%d]" $at }}
{{- if has $target.type $seen }}
{{ $field }}.type: there are two targets of type {{ $target.type }}
{{- end }}
{{- $seen = append $seen $target.type }}
{{- $members := dict "averageUtilization" (list "CPU" "Memory") "averageValue" (list "RequestRate") "percentile" (list "ProxyLatency") "value" (list "ProxyLatency") }}
{{- range $member, $types := $members }}
{{- if and (hasKey $target $member) (not (has $target.type $types)) }}
{{ $field }}.{{ $member }}: {{ $member }} is only for {{ join " and " $types }}
{{- else if and (not (hasKey $target $member)) (has $target.type $types) }}
{{ $field }}.{{ $member }}: type {{ $target.type }} needs {{ $member }}
{{- end }}
{{- end }}
{{- if hasKey $target "averageValue" }}
{{- if le (include "sluice.amount" $target.averageValue | float64) 0.0 }}
{{ $field }}.averageValue: averageValue must be above 0
{{- end }}
{{- end }}
{{- if hasKey $target "value" }}
{{- if le (include "sluice.ms" $target.value | int64) 0 }}
{{ $field }}.value: value must be above 0s
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "sluice.listenerProblems" -}}
{{- $names := list }}
{{- $places := list }}
{{- $protocols := dict }}
{{- range $at, $listener := . }}
{{- $field := printf "fleet.spec.listeners[%d]" $at }}
{{- if has $listener.name $names }}
{{ $field }}.name: there are two listeners named {{ $listener.name }}
{{- end }}
{{- $names = append $names $listener.name }}
{{- $place := printf "%v %s" $listener.port (default "" $listener.hostname) }}
{{- if has $place $places }}
{{ $field }}: two listeners have the same port and hostname: change one of the two
{{- end }}
{{- $places = append $places $place }}
{{- $port := toString $listener.port }}
{{- if ne (get $protocols $port | default $listener.protocol) $listener.protocol }}
{{ $field }}.protocol: listeners that share a port must have the same protocol
{{- end }}
{{- $_ := set $protocols $port $listener.protocol }}
{{- if and (eq $listener.protocol "HTTPS") (not (hasKey $listener "tls")) }}
{{ $field }}.tls: protocol HTTPS needs tls.certificateRefs; without certificate use protocol HTTP
{{- end }}
{{- if and (eq $listener.protocol "HTTP") (hasKey $listener "tls") }}
{{ $field }}.tls: protocol HTTP serves no certificates: leave tls out, or use protocol HTTPS
{{- end }}
{{- $namespaces := dig "allowedRoutes" "namespaces" dict $listener }}
{{- $selects := eq (default "Same" $namespaces.from) "Selector" }}
{{- if and $selects (not (hasKey $namespaces "selector")) }}
{{ $field }}.allowedRoutes.namespaces.selector: from: Selector needs a selector of namespaces
{{- else if and (not $selects) (hasKey $namespaces "selector") }}
{{ $field }}.allowedRoutes.namespaces.selector: selector is only for from: Selector
{{- end }}
{{- include "sluice.keyProblems" (list (printf "listeners[%d].allowedRoutes.namespaces.selector.matchLabels" $at) (dig "selector" "matchLabels" dict $namespaces)) }}
{{- end }}
{{- end }}

{{/* Of (where, labels or annotations). */}}
{{- define "sluice.keyProblems" -}}
{{- range $key, $value := index . 1 }}
{{- if not (regexMatch "^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$" $key) | or (gt (len $key) 317) }}
fleet.spec.{{ index $ 0 }}: {{ $key }}: a key is a name of at most 63 letters, digits, '-', '_' and '.', with a DNS name and '/' in front if you like, such as example.com/team
{{- end }}
{{- end }}
{{- end }}

{{/* Of (where, anything): every expression in it. */}}
{{- define "sluice.expressionProblems" -}}
{{- $field := index . 0 }}
{{- $value := index . 1 }}
{{- if kindIs "map" $value }}
{{- range $key, $inner := $value }}
{{- if and (has $key (list "matchExpressions" "matchFields")) (kindIs "slice" $inner) }}
{{- range $at, $expression := $inner }}
{{- $alone := has $expression.operator (list "Exists" "DoesNotExist") }}
{{- if and $alone $expression.values }}
{{ $field }}.{{ $key }}[{{ $at }}].values: the operators Exists and DoesNotExist take no values
{{- else if not (or $alone $expression.values) }}
{{ $field }}.{{ $key }}[{{ $at }}].values: the operator {{ $expression.operator }} needs values
{{- end }}
{{- end }}
{{- else }}
{{- include "sluice.expressionProblems" (list (printf "%s.%s" $field $key) $inner) }}
{{- end }}
{{- end }}
{{- else if kindIs "slice" $value }}
{{- range $at, $inner := $value }}
{{- include "sluice.expressionProblems" (list (printf "%s[%d]" $field $at) $inner) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Of (where, text). */}}
{{- define "sluice.networkProblem" -}}
{{- $byte := "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])" }}
{{- $v4 := printf "^%s([.]%s){3}/(3[0-2]|[12]?[0-9])$" $byte $byte }}
{{- $text := index . 1 }}
{{- $groups := regexFindAll "[0-9a-f]+" (regexReplaceAll "/.*$" $text "") -1 | len }}
{{- $v6 := regexMatch "^([0-9a-f]{1,4})?(:{1,2}[0-9a-f]{1,4})*(::)?/(12[0-8]|1[01][0-9]|[1-9]?[0-9])$" $text }}
{{- $gaps := regexFindAll "::" $text -1 | len }}
{{- $whole := or (and (eq $gaps 1) (lt $groups 8)) (and (eq $gaps 0) (eq $groups 8) (not (hasPrefix ":" $text))) }}
{{- if not (or (regexMatch $v4 $text) (and $v6 $whole (not (contains ":::" $text)))) }}
fleet.spec.{{ index . 0 }}: {{ $text }}: must be a network such as 10.0.0.0/8 or fd00::/8
{{- end }}
{{- end }}

{{/* Milliseconds of a duration. */}}
{{- define "sluice.ms" -}}
{{- $units := dict "h" 3600000 "m" 60000 "s" 1000 "ms" 1 }}
{{- $sum := 0 }}
{{- range regexFindAll "[0-9]+(ms|h|m|s)" (toString .) -1 }}
{{- $unit := regexFind "[a-z]+$" . }}
{{- $sum = add $sum (mul (trimSuffix $unit . | int64) (get $units $unit)) }}
{{- end }}
{{- $sum }}
{{- end }}

{{/* The number of a quantity. */}}
{{- define "sluice.amount" -}}
{{- $units := dict "" 1.0 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 }}
{{- $text := toString . }}
{{- $unit := regexFind "[A-Za-z]*$" $text }}
{{- mulf (trimSuffix $unit $text | float64) (get $units $unit) }}
{{- end }}
