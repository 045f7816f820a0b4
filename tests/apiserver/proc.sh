# shellcheck shell=bash
# Processes by record. Sourced, never run.
#
# A record is a file with one line "PID STARTTIME", the start time in clock ticks since boot as /proc/PID/stat gives it, so
# that a number used again by a stranger is never taken for the process that was recorded. A zombie counts as gone.

# start_time PID: prints it; fails if there is no such process or it is a zombie.
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # the command's name, in brackets, may hold blanks: what follows the last bracket is state, ppid, …, and 20th the start time
  # shellcheck disable=SC2086
  set -- ${stat##*) }
  [ "$1" != Z ] && [ "$1" != X ] && printf '%s\n' "${20}"
}

# record FILE PID
record() {
  local started
  started=$(start_time "$2") || return 1
  printf '%s %s\n' "$2" "$started" >"$1.part"
  mv -f "$1.part" "$1"
}

# recorded_pid FILE: prints the pid if the recorded process is still the one that runs.
recorded_pid() {
  local pid started now
  [ -s "$1" ] || return 1
  read -r pid started <"$1" || return 1
  now=$(start_time "$pid") || return 1
  [ "$now" = "$started" ] && printf '%s\n' "$pid"
}

# end_recorded FILE [SECONDS]: asks the recorded process to end, insists after SECONDS (default 5), removes the record.
end_recorded() {
  local pid seconds=${2:-5} i
  if pid=$(recorded_pid "$1"); then
    kill "$pid" 2>/dev/null || true
    for ((i = 0; i < seconds * 20; i++)); do
      recorded_pid "$1" >/dev/null || break
      sleep 0.05
    done
    if recorded_pid "$1" >/dev/null; then
      kill -9 "$pid" 2>/dev/null || true
      for ((i = 0; i < 100; i++)); do
        recorded_pid "$1" >/dev/null || break
        sleep 0.05
      done
    fi
  fi
  rm -f "$1"
}

# launch_recorded DIR PROGRAM: runs the command in DIR/PROGRAM.command (words ended by NUL) in a session of its own, so that it
# outlives the caller, appends to its log, and records it.
launch_recorded() {
  local words=() word
  while IFS= read -r -d '' word; do words+=("$word"); done <"$1/$2.command"
  setsid "${words[@]}" >>"$1/$2.log" 2>&1 </dev/null &
  record "$1/$2.pid" $! || {
    echo "$2 ended at once: $(tail -n 3 "$1/$2.log")" >&2
    return 1
  }
}
