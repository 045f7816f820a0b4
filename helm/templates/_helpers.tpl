{{/*
Names are fixed, not made of the release's name: the code knows the Lease, the policies know the accounts, and one cluster has one
CUPCAKE. A second installation under another name is refused by Helm itself, since the ClusterRole belongs to the first.
*/}}

{{- define "cupcake.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end -}}

{{/* Labels of every object. */}}
{{- define "cupcake.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: cupcake
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of pods besides those that they are found by: none that changes with the chart alone, which would restart them all. */}}
{{- define "cupcake.podLabels" -}}
app.kubernetes.io/part-of: cupcake
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
Labels by which the operator's pods are found. The value of app.kubernetes.io/name is part of the operator's code: a drain leaves
pods with it where they are (operator/src/adapters/views.rs, OPERATOR_LABEL).
*/}}
{{- define "cupcake.operator.selector" -}}
app.kubernetes.io/name: cupcake-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "cupcake.agent.selector" -}}
app.kubernetes.io/name: cupcake-agent
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: agent
{{- end -}}

{{/* The user names of the service accounts, as the API server sees them. */}}
{{- define "cupcake.operator.user" -}}
{{- printf "system:serviceaccount:%s:%s" (include "cupcake.namespace" .) .Values.operator.serviceAccount.name -}}
{{- end -}}

{{- define "cupcake.agent.user" -}}
{{- printf "system:serviceaccount:%s:%s" (include "cupcake.namespace" .) .Values.agent.serviceAccount.name -}}
{{- end -}}

{{/* An image: (dict "root" $ "image" .Values.operator.image). A digest wins over a tag. */}}
{{- define "cupcake.image" -}}
{{- $registry := .root.Values.global.imageRegistry | default .image.registry -}}
{{- $name := ternary (printf "%s/%s" (trimSuffix "/" $registry) .image.repository) .image.repository (ne $registry "") -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/*
How many replicas. Below Kubernetes 1.25 the rules of the definitions, which fence a leader that was replaced, are not enforced:
there never are two.
*/}}
{{- define "cupcake.operator.replicas" -}}
{{- if or (not .Values.operator.leaderElection.enabled) (semverCompare "<1.25.0-0" .Capabilities.KubeVersion.Version) -}}
{{- min 1 .Values.operator.replicaCount -}}
{{- else -}}
{{- .Values.operator.replicaCount -}}
{{- end -}}
{{- end -}}

{{/* "true" if there never may be two replicas, not even while one replaces another. */}}
{{- define "cupcake.operator.alone" -}}
{{- if or (not .Values.operator.leaderElection.enabled) (semverCompare "<1.25.0-0" .Capabilities.KubeVersion.Version) -}}true{{- end -}}
{{- end -}}

{{/*
"true" if the admission policies are rendered. By the version, too, since `helm template` knows no API versions unless they are
given: a fence must not be missing because of how a manifest was rendered. Where the version says so and the server has switched
them off, the installation fails loudly, and admissionPolicies.enabled: false is a choice that somebody made.
*/}}
{{- define "cupcake.policies" -}}
{{- $enabled := .Values.admissionPolicies.enabled | toString -}}
{{- $served := .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" -}}
{{- if or (eq $enabled "true") (and (eq $enabled "auto") (or $served (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version))) -}}true{{- end -}}
{{- end -}}

{{/* Name of the Secret with the URL of notifications; empty if nobody is told. */}}
{{- define "cupcake.notifications.secret" -}}
{{- with .Values.notifications -}}
{{- if .url -}}cupcake-notifications{{- else -}}{{- .existingSecret -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* What cannot be, said before anything is installed. */}}
{{- define "cupcake.refuse" -}}
{{- if .Values.externalStore.enabled -}}
{{- fail "externalStore.enabled: this release does not upload etcd snapshots yet; set it to false and copy them from agent.hostPath on the control-plane nodes yourself" -}}
{{- end -}}
{{- if and .Values.notifications.url .Values.notifications.existingSecret -}}
{{- fail "notifications.url: there is notifications.existingSecret, too; give one of them" -}}
{{- end -}}
{{- with .Values.gates.prometheus -}}
{{- if and .url .existingSecret -}}
{{- fail "gates.prometheus.url: there is gates.prometheus.existingSecret, too; give one of them" -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.operator.serviceAccount.name .Values.agent.serviceAccount.name -}}
{{- fail "agent.serviceAccount.name: operator and agent need accounts of their own; the policies tell them apart by name" -}}
{{- end -}}
{{- end -}}
