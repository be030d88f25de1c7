{{/* The chart's name: 63 characters are what a label may have. */}}
{{- define "larder.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Prefix of the objects' names: 48 characters, so that the longest suffix fits into the 63 of a Service's name. */}}
{{- define "larder.fullname" -}}
{{- $name := include "larder.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 48 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "larder.selector" -}}
app.kubernetes.io/name: {{ include "larder.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "larder.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "larder.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "larder.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "larder.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "larder.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The headless Service, whose EndpointSlices are the list of members. */}}
{{- define "larder.peersService" -}}
{{- printf "%s-peers" (include "larder.fullname" .) -}}
{{- end -}}

{{- define "larder.accountsSecret" -}}
{{- default (printf "%s-accounts" (include "larder.fullname" .)) .Values.accounts.existingSecret -}}
{{- end -}}

{{/* Whether the chart makes the accounts file. */}}
{{- define "larder.makesAccounts" -}}
{{- if not (or .Values.accounts.existingSecret .Values.accounts.url) -}}true{{- end -}}
{{- end -}}

{{/* Whether a token is in the Secret, in the clear: what clients and `helm test` read. */}}
{{- define "larder.hasToken" -}}
{{- if and (include "larder.makesAccounts" .) (not .Values.accounts.tokenHash) -}}true{{- end -}}
{{- end -}}

{{- define "larder.clientsTlsSecret" -}}
{{- default (printf "%s-tls" (include "larder.fullname" .)) .Values.tls.clients.secretName -}}
{{- end -}}

{{- define "larder.peersTlsSecret" -}}
{{- default (printf "%s-peer-tls" (include "larder.fullname" .)) .Values.tls.peers.secretName -}}
{{- end -}}

{{/* A quantity of bytes in Kubernetes' notation, as a number. */}}
{{- define "larder.bytes" -}}
{{- $units := dict "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- $text := toString . -}}
{{- $number := regexFind "^[0-9.]+" $text -}}
{{- $unit := trimPrefix $number $text -}}
{{- if or (not $number) (not (hasKey $units $unit)) -}}
{{- fail (printf "%s is no quantity of bytes; write it like 512Mi or 2Gi" $text) -}}
{{- end -}}
{{- mulf (float64 $number) (get $units $unit) | int64 -}}
{{- end -}}

{{/*
Seconds that a replica may take to hand everything over: entries of 75 % of the memory limit, at the quarter of the rate that a busy
receiver still takes, twice, because receivers may have several leavers at once. At least 20, the program's own default.
*/}}
{{- define "larder.drainSeconds" -}}
{{- $memory := include "larder.bytes" .Values.resources.limits.memory | float64 -}}
{{- $rate := include "larder.bytes" .Values.handoffRate | float64 -}}
{{- max 20 (ceil (divf (mulf $memory 0.75 2.0) (divf $rate 4.0)) | int) -}}
{{- end -}}

{{/* Linger (5 s) before, and ends of connections after. */}}
{{- define "larder.graceSeconds" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- add 15 (include "larder.drainSeconds" . | int) -}}
{{- else -}}
{{- .Values.terminationGracePeriodSeconds | int -}}
{{- end -}}
{{- end -}}

{{- define "larder.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "larder.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Mistakes that the schema cannot see. */}}
{{- define "larder.check" -}}
{{- with .Values.accounts -}}
{{- if and .existingSecret .url -}}
{{- fail "accounts.existingSecret and accounts.url are both given; keep the one that is meant" -}}
{{- end -}}
{{- if and .token .tokenHash -}}
{{- fail "accounts.token and accounts.tokenHash are both given; keep the one that is meant" -}}
{{- end -}}
{{- if and .token (lt (len .token) 32) -}}
{{- fail "accounts.token has fewer than 32 characters, so it could be guessed; take a random one, or leave it empty" -}}
{{- end -}}
{{- end -}}
{{- range $who, $its := .Values.tls -}}
{{- if and $its.enabled (not $its.secretName) (not $its.certManager.enabled) -}}
{{- fail (printf "tls.%s.enabled needs tls.%s.secretName, or tls.%s.certManager.enabled with an issuerRef" $who $who $who) -}}
{{- end -}}
{{- if and $its.certManager.enabled (not $its.certManager.issuerRef.name) -}}
{{- fail (printf "tls.%s.certManager.enabled needs tls.%s.certManager.issuerRef.name" $who $who) -}}
{{- end -}}
{{- end -}}
{{- if .Values.autoscaling.enabled -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}
{{- fail "autoscaling.minReplicas is over autoscaling.maxReplicas" -}}
{{- end -}}
{{- end -}}
{{- if lt (include "larder.graceSeconds" . | int) 15 -}}
{{- fail "terminationGracePeriodSeconds is under 15: a replica stays at least 5 s, and then hands its keys over" -}}
{{- end -}}
{{- end -}}

{{/* The rest of a container of `helm test`: (context, scheme). */}}
{{- define "larder.testContainer" -}}
{{- $ := index . 0 -}}
{{- $scheme := index . 1 -}}
image: {{ include "larder.image" $ }}
imagePullPolicy: {{ $.Values.image.pullPolicy }}
env:
  - name: LARDER_TARGET
    value: {{ printf "%s://%s:%v" $scheme (include "larder.fullname" $) $.Values.service.port }}
  - name: LARDER_TOKEN_FILE
    value: /etc/larder/token/token
  - name: LARDER_TIMEOUT
    value: 10s
  {{- if $.Values.tls.clients.enabled }}
  - name: LARDER_TLS_CA
    value: /etc/larder/tls/ca.crt
  {{- if ne $.Values.tls.clients.clientAuth "none" }}
  - name: LARDER_CLIENT_CERT
    value: /etc/larder/tls/tls.crt
  - name: LARDER_CLIENT_KEY
    value: /etc/larder/tls/tls.key
  {{- end }}
  {{- end }}
resources:
  requests:
    cpu: 10m
    memory: 32Mi
  limits:
    memory: 128Mi
securityContext:
  {{- include "larder.containerSecurityContext" $ | nindent 2 }}
volumeMounts:
  - name: token
    mountPath: /etc/larder/token
    readOnly: true
  {{- if $.Values.tls.clients.enabled }}
  - name: tls
    mountPath: /etc/larder/tls
    readOnly: true
  {{- end }}
{{- end -}}
