package route

// mediaRows are the media repository.
func mediaRows() []Row {
	return []Row{
		row("getContentAuthed", "GET", v1("/media/download/{serverName}/{mediaId}", unstable+"/org.matrix.msc3916/media/download/{serverName}/{mediaId}"), Synchrotron, ByNone, AuthGuest, RateDownload, BodyNone, Stream),
		row("getContentOverrideNameAuthed", "GET", v1("/media/download/{serverName}/{mediaId}/{fileName}", unstable+"/org.matrix.msc3916/media/download/{serverName}/{mediaId}/{fileName}"), Synchrotron, ByNone, AuthGuest, RateDownload, BodyNone, Stream),
		row("getContentThumbnailAuthed", "GET", v1("/media/thumbnail/{serverName}/{mediaId}", unstable+"/org.matrix.msc3916/media/thumbnail/{serverName}/{mediaId}"), Synchrotron, ByNone, AuthGuest, RateDownload, BodyNone, Stream),
		row("getUrlPreviewAuthed", "GET", v1("/media/preview_url", unstable+"/org.matrix.msc3916/media/preview_url"), Synchrotron, ByUser, AuthUser, RateDownload, BodyNone, Slow),
		row("getConfigAuthed", "GET", v1("/media/config", unstable+"/org.matrix.msc3916/media/config"), Synchrotron, ByUser, AuthUser, RateRead, BodyNone, Normal),
		row("uploadContent", "POST", media("/upload"), Master, ByUser, AuthUser, RateUpload, BodyUpload, Stream),
		row("uploadContentToMXC", "PUT", media("/upload/{serverName}/{mediaId}"), Master, ByUser, AuthUser, RateUpload, BodyUpload, Stream),
		row("createContent", "POST", exact(mediaPrefix+"/v1/create", mediaPrefix+"/unstable/fi.mau.msc2246/create"), Master, ByUser, AuthUser, RateUpload, BodyJSON, Normal),
		row("getContent", "GET", media("/download/{serverName}/{mediaId}"), Synchrotron, ByNone, AuthNone, RateDownload, BodyNone, Stream),
		row("getContentOverrideName", "GET", media("/download/{serverName}/{mediaId}/{fileName}"), Synchrotron, ByNone, AuthNone, RateDownload, BodyNone, Stream),
		row("getContentThumbnail", "GET", media("/thumbnail/{serverName}/{mediaId}"), Synchrotron, ByNone, AuthNone, RateDownload, BodyNone, Stream),
		row("getUrlPreview", "GET", media("/preview_url"), Synchrotron, ByUser, AuthUser, RateDownload, BodyNone, Slow),
		row("getConfig", "GET", media("/config"), Synchrotron, ByUser, AuthUser, RateRead, BodyNone, Normal),
	}
}
