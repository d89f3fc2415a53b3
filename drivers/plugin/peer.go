package plugin

import (
	"context"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// peer lets nobody but one process be at the other end of a socket, by the word of the
// kernel. Between an agent and its own program it takes the place of certificates, whose making and checking
// costs more than all else at a start, and whose ciphers cost with every message.
type peer struct {
	credentials.TransportCredentials
	pid func() int
}

func onlyPeer(pid func() int) credentials.TransportCredentials {
	return peer{insecure.NewCredentials(), pid}
}

func (p peer) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if err := p.check(conn); err != nil {
		return nil, nil, err
	}
	return p.TransportCredentials.ClientHandshake(ctx, authority, conn)
}

func (p peer) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if err := p.check(conn); err != nil {
		return nil, nil, err
	}
	return p.TransportCredentials.ServerHandshake(conn)
}

func (p peer) Clone() credentials.TransportCredentials {
	return peer{p.TransportCredentials.Clone(), p.pid}
}

// check refuses a connection whose other end another process has opened.
func (p peer) check(conn net.Conn) error {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("the other end of %s is unknown: it is no Unix socket", conn.RemoteAddr())
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return fmt.Errorf("look who is at the other end: %w", err)
	}
	var who *unix.Ucred
	var asked error
	if err := raw.Control(func(fd uintptr) {
		who, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return fmt.Errorf("look who is at the other end: %w", err)
	}
	if asked != nil {
		return fmt.Errorf("look who is at the other end: %w", asked)
	}
	if want := p.pid(); int(who.Pid) != want {
		return fmt.Errorf("process %d is at the other end of the socket, and only %d may be", who.Pid, want)
	}
	return nil
}
