package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
)

// Folder is a Store in a folder, which may be on a file system that several machines share.
type Folder struct{ root *os.Root }

// partial marks a file that is not whole yet. No name ends so.
const partial = ".part"

// OpenFolder opens a folder, which is made if it is not there. Close it in the end.
func OpenFolder(dir string) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the folder: %w", err)
	}
	return &Folder{root}, nil
}

// Close lets go of the folder.
func (f *Folder) Close() error { return f.root.Close() }

// place is where a blob is: two levels of folders keep each of them small.
func place(name string) string { return path.Join(name[:2], name[2:4], name) }

// Put implements Store: it writes a file beside the place, and moves it there when all of it is on the disk.
func (f *Folder) Put(ctx context.Context, name string, r io.Reader, size int64) (n int64, err error) {
	if err := check(name); err != nil {
		return 0, err
	}
	at := place(name)
	if err := f.makeDirs(path.Dir(at)); err != nil {
		return 0, err
	}
	file, err := f.root.OpenFile(at+partial, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, fmt.Errorf("create blob: %w", err)
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = f.root.Remove(at + partial)
		}
	}()
	if n, err = io.Copy(file, withContext{ctx, r}); err != nil {
		return n, fmt.Errorf("write blob: %w", err)
	}
	if size >= 0 && n != size {
		return n, wrongSize(n, size)
	}
	if err := file.Sync(); err != nil {
		return n, fmt.Errorf("write blob: %w", err)
	}
	if err := file.Close(); err != nil {
		return n, fmt.Errorf("write blob: %w", err)
	}
	if err := f.root.Rename(at+partial, at); err != nil {
		return n, fmt.Errorf("put blob into place: %w", err)
	}
	return n, f.syncDir(path.Dir(at))
}

// makeDirs makes a folder and the one above it. That a folder is new must survive a power cut too.
func (f *Folder) makeDirs(dir string) error {
	switch err := f.root.Mkdir(dir, 0o700); {
	case err == nil:
		return f.syncDir(path.Dir(dir))
	case errors.Is(err, fs.ErrExist):
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("make a folder: %w", err)
	}
	if err := f.root.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	return errors.Join(f.syncDir("."), f.syncDir(path.Dir(dir)))
}

func (f *Folder) syncDir(dir string) error {
	d, err := f.root.Open(dir)
	if err != nil {
		return fmt.Errorf("open the blob's folder: %w", err)
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("write the blob's folder: %w", err)
	}
	return nil
}

// file is a Blob that the kernel can copy to a socket.
type file struct {
	*os.File
	size int64
}

func (f file) Size() int64 { return f.size }

// OSFile gives the file itself, which is what [io.Copy] to a connection looks for.
func (f file) OSFile() *os.File { return f.File }

// Open implements Store.
func (f *Folder) Open(_ context.Context, name string) (Blob, error) {
	if err := check(name); err != nil {
		return nil, err
	}
	opened, err := f.root.Open(place(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	if err != nil {
		return nil, fmt.Errorf("open blob: %w", err)
	}
	info, err := opened.Stat()
	if err != nil {
		_ = opened.Close()
		return nil, fmt.Errorf("open blob: %w", err)
	}
	return file{opened, info.Size()}, nil
}

// Delete implements Store. The folders stay: who makes one and who removes it would get into each other's way.
func (f *Folder) Delete(_ context.Context, name string) error {
	if err := check(name); err != nil {
		return err
	}
	for _, at := range []string{place(name), place(name) + partial} {
		if err := f.root.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete blob: %w", err)
		}
	}
	return nil
}
