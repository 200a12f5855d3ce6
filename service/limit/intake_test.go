package limit_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/grantorhq/grantor/service/limit"
)

// TestIntake fills the budget from more and more sources, with bodies of each size, and empties it.
func TestIntake(t *testing.T) {
	for _, body := range []int{0, 1, 64 << 10, 1 << 20} {
		var intake limit.Intake
		type held struct{ source netip.Addr }
		var all []held
		for i := range 10 {
			source, bytes := netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i)), 0
			for {
				if ok, _ := intake.Enter(source, body); !ok {
					break
				}
				all = append(all, held{source})
				bytes += body + limit.RequestCost
			}
			if bytes > limit.MaxIntakePerSource || intake.Bytes() > limit.MaxIntake {
				t.Errorf("bodies of %d: a source holds %d bytes, all hold %d", body, bytes, intake.Bytes())
			}
			if i == 1 && bytes == 0 {
				t.Errorf("bodies of %d: one source holds everything", body)
			}
		}
		if intake.Bytes() < limit.MaxIntake-body-limit.RequestCost {
			t.Errorf("bodies of %d: all sources together hold only %d bytes", body, intake.Bytes())
		}
		var group sync.WaitGroup
		for _, h := range all {
			group.Go(func() { intake.Leave(h.source, body) })
		}
		group.Wait()
		if ok, busy := intake.Enter(all[0].source, body); !ok || busy || intake.Bytes() != body+limit.RequestCost {
			t.Errorf("bodies of %d: emptied, it holds %d bytes; entered %v, busy %v", body, intake.Bytes(), ok, busy)
		}
	}
}
