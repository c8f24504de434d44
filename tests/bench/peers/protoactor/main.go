// The workloads of tests/bench/actors.c on protoactor-go. Prints one JSON object: figures a second,
// bytes of an idle actor.
//
//	go run . [PART]    PART: a share of the usual counts
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

var part = 1.0

func counted(count int) int {
	return max(1000, int(float64(count)*part))
}

func newSystem() *actor.ActorSystem {
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	return actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return quiet }))
}

type letter struct {
	hopsLeft int
	random   uint32
}

// wandering: letters pass among actors; messages a second.
func wandering(processors, actors, letters, count int) float64 {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors))
	system := newSystem()
	all := make([]*actor.PID, actors)
	var finished sync.WaitGroup
	finished.Add(letters)
	props := actor.PropsFromFunc(func(context actor.Context) {
		given, ok := context.Message().(*letter)
		if !ok {
			return
		}
		given.hopsLeft--
		if given.hopsLeft < 0 {
			finished.Done()
			return
		}
		next := all[0]
		if actors == 2 {
			if context.Self() == all[0] {
				next = all[1]
			}
		} else {
			given.random = given.random*1664525 + 1013904223
			next = all[uint64(given.random)*uint64(actors)>>32]
		}
		context.Send(next, given)
	})
	for i := range all {
		all[i] = system.Root.Spawn(props)
	}
	start := time.Now()
	for i := 0; i < letters; i++ {
		system.Root.Send(all[i%actors], &letter{count / letters, uint32(i) * 2654435761})
	}
	finished.Wait()
	return float64(count) / time.Since(start).Seconds()
}

func manyToOne(count int) float64 {
	const senders = 2
	system := newSystem()
	var handled atomic.Int64
	done := make(chan bool)
	total := int64(senders * count)
	target := system.Root.Spawn(actor.PropsFromFunc(func(context actor.Context) {
		if _, ok := context.Message().(*letter); ok && handled.Add(1) == total {
			close(done)
		}
	}))
	start := time.Now()
	for i := 0; i < senders; i++ {
		go func() {
			message := &letter{}
			for k := 0; k < count; k++ {
				system.Root.Send(target, message)
			}
		}()
	}
	<-done
	return float64(total) / time.Since(start).Seconds()
}

func lives(count int) float64 {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	system := newSystem()
	var finished sync.WaitGroup
	finished.Add(count)
	props := actor.PropsFromFunc(func(context actor.Context) {
		switch context.Message().(type) {
		case *letter:
			context.Stop(context.Self())
		case *actor.Stopped:
			finished.Done()
		}
	})
	message := &letter{}
	start := time.Now()
	for i := 0; i < count; i++ {
		system.Root.Send(system.Root.Spawn(props), message)
		if i%64 == 63 {
			runtime.Gosched()
		}
	}
	finished.Wait()
	return float64(count) / time.Since(start).Seconds()
}

type order struct{ first, size int }
type number struct{ value int }

type node struct {
	sum, waiting int
	report       chan int // of the top
}

func (self *node) answer(context actor.Context, sum int) {
	if self.report != nil {
		self.report <- sum
	} else {
		context.Send(context.Parent(), &number{sum})
	}
	context.Stop(context.Self())
}

var skynetProps = actor.PropsFromProducer(func() actor.Actor { return &node{} })

func (self *node) Receive(context actor.Context) {
	switch message := context.Message().(type) {
	case *order:
		if message.size == 1 {
			self.answer(context, message.first)
			return
		}
		self.waiting = 10
		size := message.size / 10
		for i := 0; i < 10; i++ {
			context.Send(context.Spawn(skynetProps), &order{message.first + i*size, size})
		}
	case *number:
		self.sum += message.value
		self.waiting--
		if self.waiting == 0 {
			self.answer(context, self.sum)
		}
	}
}

func skynet() float64 {
	const leaves = 1000000
	system := newSystem()
	report := make(chan int, 1)
	start := time.Now()
	top := system.Root.Spawn(actor.PropsFromProducer(func() actor.Actor { return &node{report: report} }))
	system.Root.Send(top, &order{0, leaves})
	if sum := <-report; sum != leaves/2*(leaves-1) {
		fmt.Fprintln(os.Stderr, "skynet: wrong sum", sum)
		os.Exit(1)
	}
	return leaves / time.Since(start).Seconds()
}

func idleBytes() float64 {
	const count = 100000
	system := newSystem()
	props := actor.PropsFromFunc(func(actor.Context) {})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	all := make([]*actor.PID, count)
	for i := range all {
		all[i] = system.Root.Spawn(props)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(all)
	return float64(after.HeapAlloc-before.HeapAlloc) / count
}

func main() {
	if len(os.Args) > 1 {
		part, _ = strconv.ParseFloat(os.Args[1], 64)
	}
	bytes := idleBytes() // first: nothing else is on the heap
	figures := map[string]float64{
		"ping_pong":       wandering(1, 2, 1, counted(3000000)),
		"ping_pong_many":  wandering(1, 2, 100, counted(5000000)),
		"random_thousand": wandering(1, 1000, 4000, counted(5000000)),
		"random_million":  wandering(1, 1000000, 1000, counted(2000000)),
		"many_to_one":     manyToOne(counted(1000000)),
		"lives":           lives(counted(300000)),
		"skynet":          skynet(),
	}
	figures["bytes"] = bytes
	if err := json.NewEncoder(os.Stdout).Encode(figures); err != nil {
		os.Exit(1)
	}
}
