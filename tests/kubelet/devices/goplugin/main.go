// A device plugin that knows nothing of minik8s but the published .proto: main FOLDER. Two devices, go-0 and go-1.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	pb "example/v1beta1"
)

type plugin struct {
	pb.UnimplementedDevicePluginServer
}

func (plugin) GetDevicePluginOptions(context.Context, *pb.Empty) (*pb.DevicePluginOptions, error) {
	return &pb.DevicePluginOptions{PreStartRequired: true, GetPreferredAllocationAvailable: true}, nil
}

func (plugin) ListAndWatch(_ *pb.Empty, stream pb.DevicePlugin_ListAndWatchServer) error {
	devices := []*pb.Device{}
	for at := 0; at < 2; at++ {
		numa := &pb.TopologyInfo{Nodes: []*pb.NUMANode{{ID: int64(at)}}}
		devices = append(devices, &pb.Device{ID: fmt.Sprintf("go-%d", at), Health: "Healthy", Topology: numa})
	}
	if err := stream.Send(&pb.ListAndWatchResponse{Devices: devices}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func (plugin) GetPreferredAllocation(_ context.Context, asked *pb.PreferredAllocationRequest) (*pb.PreferredAllocationResponse, error) {
	answer := &pb.PreferredAllocationResponse{}
	for _, one := range asked.ContainerRequests {
		last := one.AvailableDeviceIDs[len(one.AvailableDeviceIDs)-int(one.AllocationSize):]
		answer.ContainerResponses = append(answer.ContainerResponses, &pb.ContainerPreferredAllocationResponse{DeviceIDs: last})
	}
	return answer, nil
}

func (plugin) Allocate(_ context.Context, asked *pb.AllocateRequest) (*pb.AllocateResponse, error) {
	answer := &pb.AllocateResponse{}
	for _, one := range asked.ContainerRequests {
		answer.ContainerResponses = append(answer.ContainerResponses, &pb.ContainerAllocateResponse{
			Envs:        map[string]string{"GO_IDS": fmt.Sprint(one.DevicesIds)},
			Devices:     []*pb.DeviceSpec{{HostPath: "/dev/zero", ContainerPath: "/dev/go", Permissions: "r"}},
			Annotations: map[string]string{"vendor.example/told": "yes"},
			CdiDevices:  []*pb.CDIDevice{},
		})
	}
	return answer, nil
}

func (plugin) PreStartContainer(_ context.Context, asked *pb.PreStartContainerRequest) (*pb.PreStartContainerResponse, error) {
	fmt.Println("prestart", asked.DevicesIds)
	return &pb.PreStartContainerResponse{}, nil
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	folder := os.Args[1]
	listener, err := net.Listen("unix", filepath.Join(folder, "go.sock"))
	check(err)
	server := grpc.NewServer()
	pb.RegisterDevicePluginServer(server, plugin{})
	go server.Serve(listener)

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dial := func(ctx context.Context, path string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	node, err := grpc.DialContext(ctx, filepath.Join(folder, "kubelet.sock"), grpc.WithInsecure(), grpc.WithBlock(), grpc.WithContextDialer(dial))
	check(err)
	_, err = pb.NewRegistrationClient(node).Register(ctx, &pb.RegisterRequest{
		Version: "v1beta1", Endpoint: "go.sock", ResourceName: "vendor.example/go",
		Options: &pb.DevicePluginOptions{PreStartRequired: true},
	})
	check(err)
	fmt.Println("registered")
	select {}
}
