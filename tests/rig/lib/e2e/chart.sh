# shellcheck shell=bash
# CUPCAKE by its chart, as users install it, and what its pods said and may do. Sourced, never run.

by_chart() { [ "$way" = chart ]; }

# images_import PROGRAMS TAG: both images into every node's store.
images_import() {
  local node image
  "$repo/tests/images/assemble" "$1" "$logs/images" "$2" >&2
  for node in $(nodes); do
    for image in operator agent; do
      "$rig" cp "$logs/images/cupcake-$image.tar" "$node:/root/cupcake-$image.tar"
      "$rig" exec "$node" ctr -n k8s.io images import "/root/cupcake-$image.tar" >/dev/null
      "$rig" exec "$node" rm "/root/cupcake-$image.tar"
    done
  done
  rm -r "$logs/images"
}

# chart_deploy [NAME=VALUE...]: what is not in the nodes' stores is nowhere.
chart_deploy() { "$repo/tests/helm/deploy" "$KUBECONFIG" operator.image.pullPolicy=Never agent.image.pullPolicy=Never "$@" >&2; }

chart_ready() {
  "$kubectl" -n kube-system rollout status deployment/cupcake-operator --timeout="${1:-180s}" >/dev/null &&
    "$kubectl" -n kube-system rollout status daemonset/cupcake-agent --timeout="${1:-180s}" >/dev/null
}

# install_chart: images into the nodes, then the chart, until everything of it is ready.
install_chart() {
  images_import "$bin" "$(sed -n 's/^appVersion: "\(.*\)"$/\1/p' "$repo/helm/Chart.yaml")"
  chart_deploy
  chart_ready
}

# leader_node: the node on which the leader's pod runs.
leader_node() {
  local holder
  holder=$("$kubectl" -n kube-system get lease cupcake-operator -o 'jsonpath={.spec.holderIdentity}' 2>/dev/null) || return 0
  "$kubectl" -n kube-system get pods -l app.kubernetes.io/component=operator \
    -o 'jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{"\n"}{end}' 2>/dev/null |
    awk -v holder="$holder" 'index(holder, $1) == 1 { print $2 }'
}

# pod_logs NODE: what the containers of CUPCAKE's pods there said, a file a start: from the node itself, since the API is away at
# times, and before each kill, since the kubelet throws a container's log away when the next but one begins.
# shellcheck disable=SC2016
pod_logs() {
  mkdir -p "$logs/pods"
  # tar ends with 1 when a log grows under it
  "$rig" exec "$1" sh -c 'cd /var/log/pods && tar -cf - kube-system_cupcake-*' 2>/dev/null | tar -xf - -C "$logs/pods" || true
}

# pods_report: restarts, and what is said of rights.
pods_report() {
  local node pod
  for node in $(nodes); do pod_logs "$node"; done
  "$kubectl" -n kube-system get pods -l app.kubernetes.io/part-of=cupcake -o wide >"$logs/pods.txt" 2>&1 || true
  for pod in operator agent; do
    "$kubectl" auth can-i --list --as="system:serviceaccount:kube-system:cupcake-$pod" >"$logs/can-i-$pod.txt" 2>&1 || true
  done
  "$kubectl" get validatingadmissionpolicybindings -o name >"$logs/policies.txt" 2>&1 || true
}

# no_right_missing: in the log of no start of any container. A start without a log would prove nothing, so they are counted.
no_right_missing() {
  local wanted found
  python3 "$rig_home/progs/rights.py" "$logs/pods" "$kubectl" >"$logs/refused.txt" ||
    { say "something was refused to CUPCAKE's own pods:" && cat "$logs/refused.txt" >&2 && return 1; }
  sed 's/^/e2e: /' "$logs/refused.txt" >&2
  wanted=$(awk 'NR > 1 { n += 1 + $4 } END { print n + 0 }' "$logs/pods.txt")
  found=$(find "$logs/pods" -name '*.log' | wc -l)
  if [ "$wanted" -eq 0 ] || [ "$found" -lt "$wanted" ]; then
    say "containers started $wanted times, there are $found logs in $logs/pods"
    return 1
  fi
  say "no right is missing, by $found logs of $wanted starts"
}

# policies_active: with the token that the kubelet of w1 would mount, an agent may write the task of w1 and no other's. Roles allow
# both, so what refuses the other is the policy. Nothing is written.
policies_active() {
  local pod token answer server
  pod=$("$kubectl" -n kube-system get pods -l app.kubernetes.io/component=agent --field-selector=spec.nodeName=w1 -o 'jsonpath={.items[0].metadata.name}')
  token=$("$kubectl" -n kube-system create token cupcake-agent --bound-object-kind=Pod --bound-object-name="$pod")
  server=$("$kubectl" config view -o 'jsonpath={.clusters[0].cluster.server}')
  "$kubectl" config view --raw -o 'jsonpath={.clusters[0].cluster.certificate-authority-data}' | base64 -d >"$logs/ca.crt"
  # not by kubectl, which reads the status first: agents may not, and need not
  as_agent() { # NODE
    curl -sS --cacert "$logs/ca.crt" --header "Authorization: Bearer $token" --header 'Content-Type: application/merge-patch+json' \
      --request PATCH --data '{"status":{"message":"asked by e2e"}}' \
      "$server/apis/cupcake.ricardomolendijk.com/v1/nodetasks/$1/status?dryRun=All" 2>&1
  }
  answer=$(as_agent w1)
  [[ $answer == *'asked by e2e'* ]] || { say "an agent may not write the task of its own node: $answer" && return 1; }
  answer=$(as_agent cp1)
  [[ $answer == *"the agent of node w1 may not write NodeTask cp1"* ]] ||
    { say "the policies are not active: an agent that writes the task of another node is told $answer" && return 1; }
  say "the policies are active: the agent of w1 may not write the task of cp1"
}
