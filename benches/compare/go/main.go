// The grpc-go client of the comparison (`benches/compare`): generated code on channels as they come, a goroutine for each call
// in flight. Answers as the other drivers do (`benches/client/loops.rs`).
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"larder/compare/larderv1"
)

const stride = 7_919

type driver struct {
	words                              map[string]string
	verb                               string
	bytes, keys, connections, inFlight int
	stopped                            atomic.Bool
	items                              atomic.Int64
	names                              []string
	value                              []byte
}

func main() {
	line, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "grpc-go:", err)
		os.Exit(1)
	}
	fmt.Println(line)
}

func run() (string, error) {
	d := &driver{words: map[string]string{}}
	for _, word := range os.Args[1:] {
		name, value, _ := strings.Cut(word, "=")
		d.words[name] = value
	}
	d.verb = d.words["verb"]
	d.bytes, d.keys, d.connections, d.inFlight = d.number("bytes"), d.number("keys"), d.number("connections"), d.number("window")
	d.value = []byte(strings.Repeat("x", d.bytes))
	for index := range d.keys {
		d.names = append(d.names, fmt.Sprintf("c/%d/%012d", d.bytes, index))
	}
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+os.Getenv("LARDER_TOKEN"))
	failed := make(chan error, d.connections*d.inFlight)
	var callers sync.WaitGroup
	for connection := range d.connections {
		channel, err := grpc.NewClient(d.words["address"], grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return "", err
		}
		defer channel.Close()
		client := larderv1.NewCacheClient(channel)
		for caller := range d.inFlight {
			callers.Go(func() { d.callOn(ctx, client, (connection*d.inFlight+caller)*131, failed) })
		}
	}
	time.Sleep(time.Duration(d.number("warm_up_ms")) * time.Millisecond)
	servers := strings.Split(d.words["servers"], ",")
	began, items, client, server := time.Now(), d.items.Load(), cpu("self"), cpu(servers...)
	time.Sleep(time.Duration(d.number("window_ms")) * time.Millisecond)
	items, client, server = d.items.Load()-items, cpu("self")-client, cpu(servers...)-server
	took := time.Since(began).Seconds()
	d.stopped.Store(true)
	callers.Wait()
	select {
	case err := <-failed:
		return "", err
	default:
		return fmt.Sprintf(`{"items":%d,"seconds":%f,"client":%f,"server":%f}`, items, took, client, server), nil
	}
}

func (d *driver) callOn(ctx context.Context, client larderv1.CacheClient, index int, failed chan<- error) {
	for !d.stopped.Load() {
		index = (index + stride) % d.keys
		if err := d.call(ctx, client, d.names[index]); err != nil {
			failed <- err
			return
		}
		d.items.Add(1)
	}
}

func (d *driver) call(ctx context.Context, client larderv1.CacheClient, key string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if d.verb != "get" {
		_, err := client.Store(ctx, &larderv1.StoreRequest{Key: key, Val: d.value})
		return err
	}
	got, err := client.Get(ctx, &larderv1.GetRequest{Key: key})
	if err == nil && len(got.Val) != d.bytes {
		err = fmt.Errorf("a value of %d bytes", len(got.Val))
	}
	return err
}

func (d *driver) number(name string) int {
	number, err := strconv.Atoi(d.words[name])
	if err != nil {
		panic(fmt.Sprintf("%s=: %v", name, err))
	}
	return number
}

// CPU time that all threads of processes used, in seconds.
func cpu(processes ...string) float64 {
	nanoseconds := 0.0
	for _, process := range processes {
		files, _ := filepath.Glob("/proc/" + process + "/task/*/schedstat")
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil { // the thread ended
				continue
			}
			number, _ := strconv.ParseFloat(strings.Fields(string(text))[0], 64)
			nanoseconds += number
		}
	}
	return nanoseconds / 1e9
}
