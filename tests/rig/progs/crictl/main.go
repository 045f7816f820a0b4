// crictl speaks to the node's container runtime over CRI: the part of cri-tools' command of that name that an upgrade and a
// person at the node's shell need, with the same sub-commands, flags and JSON. (The original is not to be had as a Go module.)
//
//	crictl version | info | images [-q] | inspecti IMAGE | pull IMAGE | rmi IMAGE...
//	crictl pods [--name S] [--namespace S] [--state ready|notready] [-q] | stopp POD... | rmp POD...
//	crictl ps [-a] [--name S] [--pod ID] [--state S] [--label K=V] [-q] | inspect ID | stop [-t N] ID... | rm ID...
//	crictl exec [-s] ID COMMAND... | logs [--tail N] ID
//
// images, pods, ps, inspect, inspecti, info and version take -o json. The endpoint: -r ADDRESS, CONTAINER_RUNTIME_ENDPOINT, or
// containerd's socket. Status 1 if anything went wrong.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const timeout = 2 * time.Minute

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "crictl:", err)
		os.Exit(1)
	}
}

func asJSON(m proto.Message) string {
	s, err := protojson.MarshalOptions{EmitUnpopulated: true, Indent: "  "}.Marshal(m)
	check(err)
	return string(s)
}

// withInfo joins a status and the runtime's verbose information, whose values are JSON documents of their own or plain text.
func withInfo(status proto.Message, info map[string]string) {
	all := map[string]json.RawMessage{}
	for k, v := range info {
		if json.Valid([]byte(v)) {
			all[k] = json.RawMessage(v)
		} else {
			all[k], _ = json.Marshal(v)
		}
	}
	out, err := json.MarshalIndent(map[string]any{"status": json.RawMessage(asJSON(status)), "info": all}, "", "  ")
	check(err)
	fmt.Println(string(out))
}

func short(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(13, len(id))]
}

func table(rows [][]string) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	w.Flush()
}

// matches: like the original, names are regular expressions.
func matches(pattern, name string) bool {
	re, err := regexp.Compile(pattern)
	check(err)
	return re.MatchString(name)
}

func state(c cri.ContainerState) string {
	return strings.ToUpper(c.String()[len("CONTAINER_"):][:1]) + strings.ToLower(c.String()[len("CONTAINER_")+1:])
}

func main() {
	endpoint := os.Getenv("CONTAINER_RUNTIME_ENDPOINT")
	if endpoint == "" {
		endpoint = "unix:///run/containerd/containerd.sock"
	}
	global := flag.NewFlagSet("crictl", flag.ExitOnError)
	global.StringVar(&endpoint, "r", endpoint, "endpoint of the runtime")
	global.StringVar(&endpoint, "runtime-endpoint", endpoint, "endpoint of the runtime")
	global.StringVar(new(string), "image-endpoint", "", "taken for compatibility; the runtime's endpoint serves images too")
	showVersion := global.Bool("version", false, "print the version of this program")
	check(global.Parse(os.Args[1:]))
	if *showVersion {
		fmt.Println("crictl version v0.0.0-rig")
		return
	}
	if global.NArg() == 0 {
		check(fmt.Errorf("no sub-command; see the head of its source"))
	}
	connection, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	check(err)
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c := client{cri.NewRuntimeServiceClient(connection), cri.NewImageServiceClient(connection), ctx, endpoint}
	c.run(global.Arg(0), global.Args()[1:])
}

type client struct {
	runtime  cri.RuntimeServiceClient
	images   cri.ImageServiceClient
	ctx      context.Context
	endpoint string
}

func (c client) run(command string, rest []string) {
	f := flag.NewFlagSet("crictl "+command, flag.ExitOnError)
	var output, name, namespace, pod, want, label string
	var all, quiet, sync bool
	var grace, tail int64
	for _, n := range []string{"o", "output"} {
		f.StringVar(&output, n, "table", "table or json")
	}
	for _, n := range []string{"a", "all"} {
		f.BoolVar(&all, n, false, "containers in every state")
	}
	for _, n := range []string{"q", "quiet"} {
		f.BoolVar(&quiet, n, false, "only the ids")
	}
	for _, n := range []string{"s", "sync"} {
		f.BoolVar(&sync, n, true, "run synchronously (always so here)")
	}
	for _, n := range []string{"p", "pod"} {
		f.StringVar(&pod, n, "", "id of a pod sandbox")
	}
	f.StringVar(&name, "name", "", "regular expression that the name matches")
	f.StringVar(&namespace, "namespace", "", "namespace of the pods")
	f.StringVar(&want, "state", "", "state, in any case")
	f.StringVar(&label, "label", "", "KEY=VALUE")
	f.Int64Var(&grace, "t", 0, "seconds until the kill")
	f.Int64Var(&grace, "timeout", 0, "seconds until the kill")
	f.Int64Var(&tail, "tail", -1, "lines from the end")
	check(f.Parse(rest))
	args, asJ := f.Args(), output == "json"
	one := func() string {
		if len(args) == 0 {
			check(fmt.Errorf("%s wants an argument", command))
		}
		return args[0]
	}
	labels := map[string]string{}
	if k, v, ok := strings.Cut(label, "="); ok {
		labels[k] = v
	}
	switch command {
	case "version":
		v, err := c.runtime.Version(c.ctx, &cri.VersionRequest{Version: "v1"})
		check(err)
		if asJ {
			fmt.Println(asJSON(v))
			return
		}
		fmt.Printf("Version:  %s\nRuntimeName:  %s\nRuntimeVersion:  %s\nRuntimeApiVersion:  %s\n", v.Version, v.RuntimeName, v.RuntimeVersion, v.RuntimeApiVersion)
	case "info":
		s, err := c.runtime.Status(c.ctx, &cri.StatusRequest{Verbose: true})
		check(err)
		withInfo(s.Status, s.Info)
	case "images", "image", "img":
		l, err := c.images.ListImages(c.ctx, &cri.ListImagesRequest{})
		check(err)
		if asJ {
			fmt.Println(asJSON(l))
			return
		}
		rows := [][]string{{"IMAGE", "TAG", "IMAGE ID", "SIZE"}}
		for _, i := range l.Images {
			if quiet {
				fmt.Println(i.Id)
			}
			for _, t := range i.RepoTags {
				at := strings.LastIndex(t, ":")
				rows = append(rows, []string{t[:at], t[at+1:], short(i.Id), fmt.Sprintf("%.1fMB", float64(i.Size)/1e6)})
			}
		}
		if !quiet {
			table(rows)
		}
	case "inspecti":
		s, err := c.images.ImageStatus(c.ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: one()}, Verbose: true})
		check(err)
		if s.Image == nil {
			check(fmt.Errorf("no such image %q present", one()))
		}
		withInfo(s.Image, s.Info)
	case "pull":
		p, err := c.images.PullImage(c.ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: one()}})
		check(err)
		fmt.Println("Image is up to date for", p.ImageRef)
	case "rmi":
		for _, a := range args {
			_, err := c.images.RemoveImage(c.ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: a}})
			check(err)
			fmt.Println("Deleted:", a)
		}
	case "pods":
		l, err := c.runtime.ListPodSandbox(c.ctx, &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{LabelSelector: labels}})
		check(err)
		var kept []*cri.PodSandbox
		rows := [][]string{{"POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT"}}
		for _, p := range l.Items {
			s := strings.ToLower(strings.TrimPrefix(p.State.String(), "SANDBOX_"))
			if !matches(name, p.Metadata.Name) || (namespace != "" && !matches(namespace, p.Metadata.Namespace)) || (want != "" && s != strings.ToLower(want)) {
				continue
			}
			kept = append(kept, p)
			rows = append(rows, []string{short(p.Id), time.Unix(0, p.CreatedAt).Format(time.RFC3339), s, p.Metadata.Name, p.Metadata.Namespace, fmt.Sprint(p.Metadata.Attempt)})
			if quiet {
				fmt.Println(p.Id)
			}
		}
		l.Items = kept
		if asJ {
			fmt.Println(asJSON(l))
		} else if !quiet {
			table(rows)
		}
	case "stopp":
		for _, a := range args {
			_, err := c.runtime.StopPodSandbox(c.ctx, &cri.StopPodSandboxRequest{PodSandboxId: a})
			check(err)
		}
	case "rmp":
		for _, a := range args {
			_, err := c.runtime.RemovePodSandbox(c.ctx, &cri.RemovePodSandboxRequest{PodSandboxId: a})
			check(err)
		}
	case "ps":
		l, err := c.runtime.ListContainers(c.ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{PodSandboxId: pod, LabelSelector: labels}})
		check(err)
		var kept []*cri.Container
		rows := [][]string{{"CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD"}}
		for _, k := range l.Containers {
			if want != "" && !strings.EqualFold(state(k.State), want) || want == "" && !all && k.State != cri.ContainerState_CONTAINER_RUNNING || !matches(name, k.Metadata.Name) {
				continue
			}
			kept = append(kept, k)
			rows = append(rows, []string{short(k.Id), short(k.Image.Image), time.Unix(0, k.CreatedAt).Format(time.RFC3339), state(k.State), k.Metadata.Name, fmt.Sprint(k.Metadata.Attempt), short(k.PodSandboxId), k.Labels["io.kubernetes.pod.name"]})
			if quiet {
				fmt.Println(k.Id)
			}
		}
		l.Containers = kept
		if asJ {
			fmt.Println(asJSON(l))
		} else if !quiet {
			table(rows)
		}
	case "inspect":
		s, err := c.runtime.ContainerStatus(c.ctx, &cri.ContainerStatusRequest{ContainerId: one(), Verbose: true})
		check(err)
		withInfo(s.Status, s.Info)
	case "stop":
		for _, a := range args {
			_, err := c.runtime.StopContainer(c.ctx, &cri.StopContainerRequest{ContainerId: a, Timeout: grace})
			check(err)
		}
	case "rm":
		for _, a := range args {
			_, err := c.runtime.RemoveContainer(c.ctx, &cri.RemoveContainerRequest{ContainerId: a})
			check(err)
		}
	case "exec":
		r, err := c.runtime.ExecSync(c.ctx, &cri.ExecSyncRequest{ContainerId: one(), Cmd: args[1:], Timeout: int64(timeout / time.Second)})
		check(err)
		os.Stdout.Write(r.Stdout)
		os.Stderr.Write(r.Stderr)
		os.Exit(int(r.ExitCode))
	case "logs":
		s, err := c.runtime.ContainerStatus(c.ctx, &cri.ContainerStatusRequest{ContainerId: one()})
		check(err)
		from := "+1"
		if tail >= 0 {
			from = strconv.FormatInt(tail, 10)
		}
		cmd := exec.Command("tail", "-n", from, s.Status.LogPath)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		check(cmd.Run())
	default:
		check(fmt.Errorf("unknown sub-command %q", command))
	}
}
