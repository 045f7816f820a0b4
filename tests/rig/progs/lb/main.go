// lb is the load balancer of the control-plane endpoint.
//
//	lb -netns /run/netns/NAME -outside 127.0.0.1:PORT -inside 10.99.0.1:6443 BACKEND...
//
// It accepts connections at two addresses and passes each to one backend: at -outside, in the network namespace that it was
// started in, so that programs of the machine reach the cluster; and at -inside, in the namespace -netns, where it also dials
// the backends. A backend serves while GET /readyz answers 200 (asked once a second): a balancer that only looks at TCP sends
// every third request into an API server whose etcd is just restarting. When no backend is ready, any that accepts is used.
//
// A socket stays in the namespace in which it was made. So the program listens outside first, then executes itself once more
// by nsenter in the other namespace, with that socket as file descriptor 3.
package main

import (
	"crypto/tls"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	dialTimeout   = time.Second
	checkInterval = time.Second
	inheritedFD   = 3
)

type backend struct {
	address string
	ready   atomic.Bool
}

// watch asks the backend once a second whether it is ready, and logs each change.
func (b *backend) watch() {
	client := http.Client{
		Timeout: checkInterval,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			// only the status matters here, and clients check the certificate end to end
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		},
	}
	for ; ; time.Sleep(checkInterval) {
		answer, err := client.Get("https://" + b.address + "/readyz")
		ready := err == nil && answer.StatusCode == http.StatusOK
		if err == nil {
			answer.Body.Close()
		}
		if b.ready.Swap(ready) != ready {
			log.Printf("%s ready: %t", b.address, ready)
		}
	}
}

type balancer struct {
	backends []*backend
	next     atomic.Uint32
}

// dial connects to the next ready backend in turn, or else to any that accepts.
func (l *balancer) dial() net.Conn {
	start := int(l.next.Add(1))
	for _, onlyReady := range []bool{true, false} {
		for i := range l.backends {
			b := l.backends[(start+i)%len(l.backends)]
			if onlyReady && !b.ready.Load() {
				continue
			}
			if c, err := net.DialTimeout("tcp", b.address, dialTimeout); err == nil {
				return c
			}
		}
	}
	return nil
}

func (l *balancer) serve(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer client.Close()
			server := l.dial()
			if server == nil {
				return
			}
			defer server.Close()
			done := make(chan struct{}, 2)
			pipe := func(to, from net.Conn) {
				io.Copy(to, from)
				to.(*net.TCPConn).CloseWrite()
				done <- struct{}{}
			}
			go pipe(server, client)
			go pipe(client, server)
			<-done
			<-done
		}()
	}
}

// enter listens outside and becomes this very program inside the other namespace.
func enter(netns, outside string) error {
	listener, err := net.Listen("tcp", outside)
	if err != nil {
		return err
	}
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	if int(file.Fd()) != inheritedFD {
		if err := syscall.Dup3(int(file.Fd()), inheritedFD, 0); err != nil {
			return err
		}
	} else if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, inheritedFD, syscall.F_SETFD, 0); errno != 0 {
		return errno
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	arguments := append([]string{nsenter, "--net=" + netns, self, "-entered"}, os.Args[1:]...)
	return syscall.Exec(nsenter, arguments, os.Environ())
}

func main() {
	netns := flag.String("netns", "", "network namespace of the nodes")
	outside := flag.String("outside", "", "address to listen at in the namespace this was started in")
	inside := flag.String("inside", "", "address to listen at in the namespace of the nodes")
	entered := flag.Bool("entered", false, "set by the program itself")
	flag.Parse()
	if !*entered {
		log.Fatal(enter(*netns, *outside))
	}
	inherited, err := net.FileListener(os.NewFile(inheritedFD, "outside"))
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *inside)
	if err != nil {
		log.Fatal(err)
	}
	l := &balancer{}
	for _, address := range flag.Args() {
		b := &backend{address: address}
		l.backends = append(l.backends, b)
		go b.watch()
	}
	go l.serve(inherited)
	l.serve(listener)
}
