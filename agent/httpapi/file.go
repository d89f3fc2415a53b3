package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc"

	"github.com/sheaf-run/agent/internal/wire"
	"github.com/sheaf-run/agent/sheaf"
)

// FileRead names a file of a partition's output, and which of its bytes are wanted.
type FileRead struct {
	ExecutionRead
	Output  string `query:"output" maxLength:"64" doc:"name of the output"`
	Path    string `query:"path" maxLength:"4096" doc:"within the output"`
	Range   string `header:"Range" maxLength:"256" doc:"one range, as in bytes=1000-, bytes=0-99 or bytes=-100; of several the whole is sent"`
	IfRange string `header:"If-Range" maxLength:"256" doc:"an ETag: the range is sent if the file has it, else the whole"`
}

// span is a range of bytes; the zero value is the whole.
type span struct {
	from, length, suffix uint64 // length 0 is to the end
	partial              bool
}

// spanOf reads a Range header.
func spanOf(text string) (span, error) {
	list, ok := strings.CutPrefix(text, "bytes=")
	if text == "" || ok && strings.Contains(list, ",") { // who asks for several may be sent all
		return span{}, nil
	}
	first, last, dash := strings.Cut(strings.TrimSpace(list), "-")
	s := span{partial: true}
	var err, err2 error
	switch {
	case first == "" && last != "":
		s.suffix, err = strconv.ParseUint(last, 10, 63)
		if err == nil && s.suffix == 0 {
			s.from = 1 << 62 // the last none: there is no such part
		}
	case last == "":
		s.from, err = strconv.ParseUint(first, 10, 63)
	default:
		var end uint64
		s.from, err = strconv.ParseUint(first, 10, 63)
		end, err2 = strconv.ParseUint(last, 10, 63)
		s.length = end - s.from + 1
		ok = ok && end >= s.from
	}
	if err != nil || err2 != nil || !ok || !dash {
		return span{}, &sheaf.Error{Class: sheaf.Invalid, Field: "Range", Msg: fmt.Sprintf("range %q is not understood", text), Hint: `write it as in "bytes=1000-", "bytes=0-99" or "bytes=-100"`}
	}
	return s, nil
}

// describe tells of the whole of what is sent by its sha256, in hex, so that it can be verified and asked
// for again.
func describe(w http.ResponseWriter, sum string) {
	w.Header().Set("ETag", `"`+sum+`"`)
	if b, err := hex.DecodeString(sum); err == nil {
		w.Header().Set("Repr-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(b)+":")
	}
}

// file answers with the bytes of a file, or a range of them.
func (a *API) file(w http.ResponseWriter, r *http.Request, in *FileRead) error {
	run, p, conn, err := a.located(r.Context(), in.ExecutionRead)
	if err != nil {
		return err
	}
	maker, as := madeBy(run, p)
	attempt, err := intParam("attempt", in.Attempt)
	if err != nil {
		return err
	}
	if attempt == 0 {
		attempt = int64(p.Attempt)
	}
	part, err := spanOf(in.Range)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	open := func() (grpc.ServerStreamingClient[wire.FilePiece], *wire.FilePiece, error) {
		stream, err := conn.ReadFile(ctx, &wire.ReadFileRequest{
			Run: string(maker), Partition: uint32(as), Attempt: uint32(attempt), Output: in.Output, Path: []byte(in.Path),
			Offset: part.from, Length: part.length, Suffix: part.suffix, Describe: true,
		})
		if err != nil {
			return nil, nil, nodeError(p.Node, err)
		}
		first, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream, &wire.FilePiece{}, nil
		}
		return stream, first, nodeError(p.Node, err)
	}
	stream, first, err := open()
	if err != nil {
		return err
	}
	// A committed file never changes: where its digest is not at hand, whose it is says as much.
	tag := fmt.Sprintf("%s.%d.%d", maker, as, attempt)
	if first.Sha256 != "" {
		tag = first.Sha256
	}
	if part.partial && in.IfRange != "" && in.IfRange != `"`+tag+`"` {
		part = span{}
		if stream, first, err = open(); err != nil {
			return err
		}
	}
	describe(w, tag)
	w.Header().Set("Accept-Ranges", "bytes")
	from, length := part.from, first.Size
	if part.suffix > 0 {
		from = first.Size - min(part.suffix, first.Size)
	}
	if part.partial {
		if from >= first.Size && len(first.Data) == 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", first.Size))
			writeProblem(w, a.log, &Problem{
				Title: http.StatusText(http.StatusRequestedRangeNotSatisfiable), Status: http.StatusRequestedRangeNotSatisfiable, Code: sheaf.Invalid,
				Detail: fmt.Sprintf("the file has no byte of the range %q", in.Range), Field: "Range", Limit: fmt.Sprintf("%d bytes", first.Size),
			})
			return nil
		}
		length = first.Size - from
		if part.length > 0 {
			length = min(length, part.length)
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, from+length-1, first.Size))
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if whole := first.Size > 0 || len(first.Data) == 0; whole { // a client of an older version does not say how long it is
		w.Header().Set("Content-Length", strconv.FormatUint(length, 10))
	}
	if part.partial {
		w.WriteHeader(http.StatusPartialContent)
	}
	if _, err := w.Write(first.Data); err != nil {
		panic(http.ErrAbortHandler)
	}
	if err := pieces(w, p.Node, stream.Recv, (*wire.FilePiece).GetData); err != nil {
		panic(http.ErrAbortHandler) // there is no taking back what was sent
	}
	return nil
}
